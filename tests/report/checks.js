// What a reader could trip over, found in the page as it is drawn: a list of sentences, empty if
// all is well.
() => {
  const faults = [];
  const parts = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    return numbers.length > 3 ? numbers : [...numbers, 1];
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((part) => {
      const value = part / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  let numTexts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, .tip")) continue;
    const style = getComputedStyle(element);
    const ink = parts(element.ownerSVGElement ? style.fill : style.color).slice(0, 3);
    const [bright, dark] = [luminance(ink), luminance(ground(element))].sort((a, b) => b - a);
    const contrast = (bright + 0.05) / (dark + 0.05);
    numTexts += 1;
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${node.data.slice(0, 40)}`);
    if (parseFloat(style.fontSize) < 11) faults.push(`small letters: ${node.data.slice(0, 40)}`);
  }
  if (numTexts < 100) faults.push(`only ${numTexts} texts`);
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth) {
    faults.push(`the page scrolls sideways: ${page.scrollWidth} > ${page.clientWidth}`);
  }
  const width = page.clientWidth;
  for (const e of document.querySelectorAll("section, .plot-box, .scroll, p, dl")) {
    const box = e.getBoundingClientRect();
    if (e.checkVisibility() && (box.right > width + 0.5 || box.left < -0.5)) {
      faults.push(`outside the screen: ${e.tagName} ${e.className}`);
    }
  }
  for (const picture of document.querySelectorAll("svg:not([aria-hidden] *, [aria-hidden])")) {
    if (picture.parentElement.closest("svg")) continue;
    if (picture.getAttribute("role") !== "img" || !picture.getAttribute("aria-label")) {
      faults.push(`a picture without a label: ${picture.outerHTML.slice(0, 80)}`);
    }
    if (picture.checkVisibility() && picture.getBoundingClientRect().width < 60) {
      faults.push(`a picture too narrow: ${picture.getAttribute("aria-label")}`);
    }
  }
  for (const box of document.querySelectorAll("[role=region]")) {
    if (!box.getAttribute("aria-label") || box.tabIndex !== 0) faults.push("a box without a label");
  }
  for (const input of document.querySelectorAll("input")) {
    if (!input.labels.length) faults.push("a control without a label");
  }
  for (const control of document.querySelectorAll("input, summary, nav a")) {
    const box = control.getBoundingClientRect();
    if (control.checkVisibility() && box.height < 24) faults.push("a control too small to touch");
  }
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((h) => Number(h.tagName[1]));
  levels.forEach((level, i) => {
    if (level > (levels[i - 1] ?? 0) + 1) faults.push(`a heading's level is left out: h${level}`);
  });
  for (const title of document.querySelectorAll("[aria-labelledby]")) {
    if (!document.getElementById(title.getAttribute("aria-labelledby"))) faults.push("no such name");
  }
  if (!document.documentElement.lang || !document.title) faults.push("no language or title");
  return faults;
}
