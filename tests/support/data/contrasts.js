// The texts whose contrast with what is behind them is below 4.5, by the formula of WCAG 2.
const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((value) => {
        const part = value / 255;
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const read = (text) => (text.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
        const colour = read(getComputedStyle(each).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) {
            return colour;
        }
    }
    return [255, 255, 255];
};
const bad = [];
for (const element of document.querySelectorAll(".pgq-dash *")) {
    const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (said && element.checkVisibility() && !element.closest("svg")) {
        const both = [luminance(read(getComputedStyle(element).color)), luminance(behind(element))].sort((a, b) => b - a);
        const ratio = (both[0] + 0.05) / (both[1] + 0.05);
        if (ratio < 4.5) {
            bad.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className}: ${element.textContent.trim().slice(0, 40)}`);
        }
    }
}
return bad;
