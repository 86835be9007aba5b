"use strict";
// Pages through items that are all in the document; without this script they are all shown.
for (const pager of document.querySelectorAll(".pager")) {
  const items = [...pager.querySelectorAll(":scope > .item")];
  const size = Number(pager.dataset.size);
  let page = 0;
  const make = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text || "";
    return element;
  };
  const tools = make("div");
  tools.className = "tools";
  const back = make("button", "← previous"), next = make("button", "next →"), where = make("span");
  where.setAttribute("aria-live", "polite");
  let search = null, kind = null;
  if (pager.dataset.filter) {
    search = make("input");
    search.type = "search";
    search.placeholder = "search questions and answers";
    search.setAttribute("aria-label", "Search wrong answers");
    kind = make("select");
    kind.setAttribute("aria-label", "Which wrong answers");
    for (const [value, text] of [["all", "all wrong answers"], ["some", "right after some block"], ["never", "never right"], ["cut", "cut off"]]) {
      const option = make("option", text);
      option.value = value;
      kind.append(option);
    }
    tools.append(search, kind);
  }
  tools.append(back, next, where);
  pager.prepend(tools);
  const chosen = (item) => {
    const words = search ? search.value.toLowerCase() : "";
    if (words && !item.textContent.toLowerCase().includes(words)) return false;
    const wanted = kind ? kind.value : "all";
    return wanted === "all" || (wanted === "some" && item.dataset.some === "1") ||
      (wanted === "never" && item.dataset.some === "0") || (wanted === "cut" && item.dataset.cut === "1");
  };
  const show = () => {
    const found = items.filter(chosen);
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(0, page), pages - 1);
    const visible = new Set(found.slice(page * size, (page + 1) * size));
    for (const item of items) item.hidden = !visible.has(item);
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
    where.textContent = found.length ? `${page + 1} of ${pages}, ${found.length} in all` : "none";
  };
  back.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  for (const control of [search, kind]) {
    if (control) control.addEventListener("input", () => { page = 0; show(); });
  }
  pager.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" || event.target.tagName === "SELECT") return;
    if (event.key === "ArrowLeft") { page -= 1; show(); }
    if (event.key === "ArrowRight") { page += 1; show(); }
  });
  window.addEventListener("beforeprint", () => { for (const item of items) item.hidden = !chosen(item); });
  window.addEventListener("afterprint", show);
  show();
}
