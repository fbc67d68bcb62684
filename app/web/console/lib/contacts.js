// Files of contacts, in parts that the API takes.

const MOST_BYTES = 50_000; // as JSON; the API takes bodies of 64 KiB

// The rows of a CSV; a line break within quotes is part of its row.
function rowsOf(text) {
  const rows = [];
  let row = "";
  for (const line of text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/)) {
    row = row ? `${row}\n${line}` : line;
    if ((row.split('"').length - 1) % 2 === 0) {
      if (row.trim()) rows.push(row);
      row = "";
    }
  }
  if (row) rows.push(row); // its quotes are never closed: the API says so
  return rows;
}

const size = (text) => new TextEncoder().encode(JSON.stringify(text)).length;

// The same contacts as texts of CSV that are small enough, each with the names of the columns.
export function partsOf(text) {
  const [header = "", ...rows] = rowsOf(text);
  const parts = [];
  let part = [];
  let bytes = 0;
  for (const row of rows) {
    const more = size(row);
    if (part.length && bytes + more > MOST_BYTES - size(header)) {
      parts.push(part);
      [part, bytes] = [[], 0];
    }
    part.push(row);
    bytes += more;
  }
  parts.push(part);
  return parts.map((lines) => [header, ...lines].join("\n"));
}
