// SPDX-License-Identifier: GPL-2.0
/*
 * UIO for QEMU's ivshmem-doorbell (1af4:1110, docs/specs/ivshmem-spec).
 *
 * A UIO device for each MSI-X vector N, named "ivshmem-N", so that each of a guest's processes can sleep on
 * a vector of its own; a read of it waits for the next interrupt, as with any UIO device. All of them have
 * the same two maps: 0, the registers (BAR 0); 1, the shared memory (BAR 2), cached as the processor allows it.
 *
 * Safe to unplug: whoever sleeps is woken with EIO; and as a process may keep its maps for as long as it likes,
 * they are taken from the device before it goes. What is read there afterwards is one page of zeroes.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/uio_driver.h>
#include <linux/version.h>

#define VECTORS_MAX 64
enum { REGISTERS, MEMORY, MAPS };
static const int bars[MAPS] = { [REGISTERS] = 0, [MEMORY] = 2 };

struct vector {
	struct uio_info info;
	char name[16];
};

/* Where a map was made, to be found again when the device goes. */
struct place {
	struct list_head list;
	struct inode *inode;
};

struct ivshmem {
	struct kref ref; /* the driver's, and one of each map */
	struct rw_semaphore lock;
	bool gone;
	struct list_head places;
	struct page *nothing;
	void *cached; /* holds the memory's type */
	resource_size_t start[MAPS];
	unsigned int registered;
	struct vector vectors[];
};

static void ivshmem_free(struct kref *ref)
{
	struct ivshmem *dev = container_of(ref, struct ivshmem, ref);

	if (dev->nothing)
		__free_page(dev->nothing);
	kfree(dev);
}

static void map_open(struct vm_area_struct *vma)
{
	struct ivshmem *dev = vma->vm_private_data;

	kref_get(&dev->ref);
}

static void map_close(struct vm_area_struct *vma)
{
	struct ivshmem *dev = vma->vm_private_data;

	kref_put(&dev->ref, ivshmem_free);
}

/* vm_pgoff tells which map it is, not where: a part of it could not be told from another map. */
static int map_split(struct vm_area_struct *vma, unsigned long addr)
{
	return -EINVAL;
}

static vm_fault_t map_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct ivshmem *dev = vma->vm_private_data;
	unsigned long pfn;
	vm_fault_t ret;

	down_read(&dev->lock);
	if (dev->gone)
		pfn = page_to_pfn(dev->nothing);
	else
		pfn = PHYS_PFN(dev->start[vma->vm_pgoff]) + ((vmf->address - vma->vm_start) >> PAGE_SHIFT);
	ret = vmf_insert_pfn(vma, vmf->address, pfn);
	up_read(&dev->lock);
	return ret;
}

static const struct vm_operations_struct map_ops = {
	.open = map_open,
	.close = map_close,
	.may_split = map_split,
	.fault = map_fault,
};

static int remember(struct ivshmem *dev, struct inode *inode)
{
	struct place *p;
	int rc = 0;

	down_write(&dev->lock);
	list_for_each_entry(p, &dev->places, list)
		if (p->inode == inode)
			goto out;
	p = kzalloc(sizeof(*p), GFP_KERNEL);
	if (!p) {
		rc = -ENOMEM;
		goto out;
	}
	ihold(inode);
	p->inode = inode;
	list_add(&p->list, &dev->places);
out:
	up_write(&dev->lock);
	return rc;
}

/* uio_mmap() has found the map to be there and not to be larger than it is. */
static int ivshmem_mmap(struct uio_info *info, struct vm_area_struct *vma)
{
	struct ivshmem *dev = info->priv;
	int rc;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	rc = remember(dev, vma->vm_file->f_mapping->host);
	if (rc)
		return rc;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
	vma->vm_flags |= VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP;
#else
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
#endif
	if (vma->vm_pgoff == REGISTERS)
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	vma->vm_private_data = dev;
	vma->vm_ops = &map_ops;
	kref_get(&dev->ref);
	return 0;
}

static irqreturn_t ivshmem_interrupt(int irq, struct uio_info *info)
{
	return IRQ_HANDLED; /* the vector is all that there is to know; UIO wakes who waits */
}

/* The maps lose the device. Nobody can make another: no UIO device is left. */
static void take_away(struct ivshmem *dev)
{
	struct place *p, *next;

	down_write(&dev->lock);
	dev->gone = true;
	up_write(&dev->lock);
	list_for_each_entry_safe(p, next, &dev->places, list) {
		unmap_mapping_range(p->inode->i_mapping, 0, 0, 1);
		iput(p->inode);
		list_del(&p->list);
		kfree(p);
	}
}

static void unregister_all(struct ivshmem *dev)
{
	while (dev->registered)
		uio_unregister_device(&dev->vectors[--dev->registered].info);
}

static int register_all(struct ivshmem *dev, struct pci_dev *pdev, unsigned int count)
{
	int rc = 0;

	while (!rc && dev->registered < count) {
		struct vector *v = &dev->vectors[dev->registered];

		snprintf(v->name, sizeof(v->name), "ivshmem-%u", dev->registered);
		v->info.name = v->name;
		v->info.version = "1";
		v->info.priv = dev;
		v->info.irq = pci_irq_vector(pdev, dev->registered);
		v->info.handler = ivshmem_interrupt;
		v->info.mmap = ivshmem_mmap;
		for (int i = 0; i < MAPS; i++) {
			v->info.mem[i].name = i == REGISTERS ? "registers" : "memory";
			v->info.mem[i].memtype = UIO_MEM_PHYS;
			v->info.mem[i].addr = dev->start[i];
			v->info.mem[i].size = pci_resource_len(pdev, bars[i]);
		}
		rc = uio_register_device(&pdev->dev, &v->info);
		if (!rc)
			dev->registered++;
	}
	return rc;
}

static int ivshmem_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct ivshmem *dev;
	int rc, count;

	if (!pci_resource_len(pdev, bars[REGISTERS]) || !pci_resource_len(pdev, bars[MEMORY]))
		return -ENODEV;
	rc = pci_enable_device(pdev);
	if (rc)
		return rc;
	rc = pci_request_regions(pdev, "uio_ivshmem");
	if (rc)
		goto out_disable;
	pci_set_master(pdev); /* an MSI-X is a write */
	count = pci_alloc_irq_vectors(pdev, 1, VECTORS_MAX, PCI_IRQ_MSIX);
	if (count < 0) { /* ivshmem-plain has no doorbells */
		rc = count;
		goto out_regions;
	}
	dev = kzalloc(struct_size(dev, vectors, count), GFP_KERNEL);
	if (!dev) {
		rc = -ENOMEM;
		goto out_vectors;
	}
	kref_init(&dev->ref);
	init_rwsem(&dev->lock);
	INIT_LIST_HEAD(&dev->places);
	for (int i = 0; i < MAPS; i++)
		dev->start[i] = pci_resource_start(pdev, bars[i]);
	dev->nothing = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!dev->nothing) {
		rc = -ENOMEM;
		goto out_dev;
	}
	/* Else processes would get it uncached, which NPT takes seriously. No harm if it cannot be had. */
	dev->cached = memremap(dev->start[MEMORY], pci_resource_len(pdev, bars[MEMORY]), MEMREMAP_WB);
	rc = register_all(dev, pdev, count);
	if (rc)
		goto out_dev;
	pci_set_drvdata(pdev, dev);
	return 0;

out_dev:
	unregister_all(dev);
	take_away(dev);
	if (dev->cached)
		memunmap(dev->cached);
	kref_put(&dev->ref, ivshmem_free);
out_vectors:
	pci_free_irq_vectors(pdev);
out_regions:
	pci_release_regions(pdev);
out_disable:
	pci_disable_device(pdev);
	return rc;
}

static void ivshmem_remove(struct pci_dev *pdev)
{
	struct ivshmem *dev = pci_get_drvdata(pdev);

	unregister_all(dev);
	take_away(dev);
	if (dev->cached)
		memunmap(dev->cached);
	kref_put(&dev->ref, ivshmem_free);
	pci_free_irq_vectors(pdev);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
}

static const struct pci_device_id ivshmem_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1110) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ivshmem_ids);

static struct pci_driver ivshmem_driver = {
	.name = "uio_ivshmem",
	.id_table = ivshmem_ids,
	.probe = ivshmem_probe,
	.remove = ivshmem_remove,
};
module_pci_driver(ivshmem_driver);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("QEMU's ivshmem-doorbell for programs in user space, with an interrupt a vector");
