// Decodes a token here, in the browser. Nothing of it is sent: the field has no name and belongs to no form.
"use strict";
(() => {
  const TIMES = new Set(["exp", "iat", "nbf", "auth_time", "root_iat", "updated_at"]);
  const field = document.getElementById("pasted");
  const verdict = document.getElementById("verdict");
  const decoded = document.getElementById("decoded");

  function part(text) {
    const bytes = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    const read = new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes, (each) => each.charCodeAt(0)));
    const value = JSON.parse(read);
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("no object");
    return value;
  }

  function fill(body, members) {
    body.replaceChildren(...Object.entries(members).map(([name, value]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      const cell = document.createElement("td");
      head.textContent = name;
      cell.textContent = typeof value === "string" ? value : JSON.stringify(value);
      if (TIMES.has(name) && Number.isFinite(value) && Math.abs(value) < 1e11)
        cell.textContent += `  (${new Date(value * 1000).toISOString().replace(".000", "")})`;
      row.append(head, cell);
      return row;
    }));
  }

  function say(text, look) {
    verdict.textContent = text;
    verdict.className = `summary ${look ? `notice ${look}` : ""}`;
  }

  function show() {
    const token = field.value.trim().replace(/^bearer\s+/i, "");
    decoded.hidden = true;
    if (!token) return say("", "");
    const parts = token.split(".");
    if (parts.length !== 3) return say("This is no signed token: it has not three parts with dots between.", "bad");
    let header, claims;
    try {
      header = part(parts[0]);
      claims = part(parts[1]);
    } catch {
      return say("This is no token: its parts are not JSON in base64url. Is all of it there?", "bad");
    }
    fill(document.getElementById("decoded-header"), header);
    fill(document.getElementById("decoded-claims"), claims);
    decoded.hidden = false;
    const left = Number(claims.exp) - Date.now() / 1000;
    if (!Number.isFinite(left)) say("It does not say when it expires.", "bad");
    else if (left <= 0) say(`It expired ${Math.round(-left)} s ago by this machine's clock.`, "bad");
    else say(`It expires in ${left > 120 ? `${Math.round(left / 60)} min` : `${Math.round(left)} s`}.`, "good");
    if (typeof claims.jti === "string") document.getElementById("jti").value = claims.jti.slice(0, 255);
  }

  document.getElementById("decoder").hidden = false;
  field.addEventListener("input", show);
  addEventListener("pagehide", () => { // nothing is left for whoever comes back to this page
    field.value = "";
    show();
  });
})();
