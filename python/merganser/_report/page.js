// A click on a title sorts the table by its column: numbers from high to low at first,
// texts from a to z; empty cells stay last.
for (const table of document.querySelectorAll("table")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => title.addEventListener("click", () => {
    const rows = [...table.tBodies[0].rows];
    const key = (row) => row.cells[column].dataset.key;
    const text = (row) => row.cells[column].textContent;
    const numbers = rows.some((row) => key(row) !== undefined);
    const before = title.getAttribute("aria-sort") ?? (numbers ? "ascending" : "descending");
    const sign = before === "ascending" ? -1 : 1;
    titles.forEach((other) => other.removeAttribute("aria-sort"));
    title.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    rows.sort((a, b) =>
      (text(a) === "") - (text(b) === "") ||
      sign * (numbers ? key(a) - key(b) : text(a).localeCompare(text(b))));
    table.tBodies[0].append(...rows);
  }));
}
