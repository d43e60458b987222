# SPDX-License-Identifier: MIT
# A line plot as SVG: awk -F'\t' -v title=… -v below=… -v labels='1,2,4' -f bench/plot.awk. A line of input is a series: its
# name, then a value for each label.
function x(i) { return 60 + (n > 1 ? (i - 1) * 560 / (n - 1) : 280) }
function y(v) { return 290 - v * 240 / top }
function text(at, down, anchor, words) {
	gsub(/&/, "\\&amp;", words)
	gsub(/</, "\\&lt;", words)
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", at, down, anchor, words
}
{
	name[NR] = $1
	for (i = 2; i <= NF; i++) {
		v[NR, i - 1] = $i
		if ($i + 0 > top) top = $i + 0
	}
}
END {
	n = split(labels, label, ",")
	split("#c0392b #e08e0b #2471a3 #1e8449 #7d3c98 #566573", colour, " ")
	split("none 8,4 2,3 none 8,4 2,3", dash, " ")
	# 1, 2, 5, 10, … a step, at most six of them
	for (step = 1; top / step > 6;) step *= (substr(step, 1, 1) == 2 ? 2.5 : 2)
	top = step * (int(top / step) + (top > step * int(top / step) || !top))
	print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 840 350\" font-family=\"sans-serif\" font-size=\"13\">"
	print "<rect width=\"840\" height=\"350\" fill=\"white\"/>"
	text(60, 28, "start", title)
	for (t = 0; t <= top; t += step) {
		printf "<line x1=\"60\" x2=\"620\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", y(t), y(t)
		text(52, y(t) + 4, "end", t)
	}
	for (i = 1; i <= n; i++)
		text(x(i), 310, "middle", label[i])
	text(340, 335, "middle", below)
	for (s = 1; s <= NR; s++) {
		printf "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"", colour[s], dash[s]
		for (i = 1; i <= n; i++) printf "%.1f,%.1f ", x(i), y(v[s, i])
		print "\"/>"
		for (i = 1; i <= n; i++)
			printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x(i), y(v[s, i]), colour[s]
		printf "<line x1=\"640\" x2=\"664\" y1=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>\n",
			50 + s * 22, 50 + s * 22, colour[s], dash[s]
		text(670, 54 + s * 22, "start", name[s])
	}
	print "</svg>"
}
