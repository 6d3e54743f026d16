/**
 * The page of the API documentation: shows what credentials open, sends requests and shows their answers.
 *
 * Whatever comes from a server is put into the page as text; only our own page, rendered by Odoo, comes as HTML.
 * Credentials live in the form fields alone, and the session of who is logged in to Odoo is never sent along.
 */
(() => {
    "use strict";

    const page = document.getElementById("page");
    const FOLDER = location.pathname.replace(/\/docs\/?$/, "");

    /** Return the headers of the credentials that are filled in. */
    function getCredentials() {
        const { token, login, password, headers } = document.getElementById("credentials").elements;
        const result = {};
        if (token.value) {
            result.Authorization = `Bearer ${token.value.trim()}`;
        } else if (login.value || password.value) {
            const bytes = new TextEncoder().encode(`${login.value}:${password.value}`);
            result.Authorization = `Basic ${btoa(String.fromCharCode(...bytes))}`;
        }
        for (const line of headers.value.split("\n")) {
            const [, name, value] = line.match(/^\s*([^:\s]+)\s*:\s*(.*?)\s*$/) || [];
            if (name) {
                result[name] = value;
            }
        }
        return result;
    }

    /** Return method, url, headers and body of the request a form describes. */
    function getRequest(form) {
        const headers = getCredentials();
        const query = new URLSearchParams();
        let path = form.dataset.path;
        for (const input of form.querySelectorAll("[data-in]")) {
            if (input.dataset.in === "path") {
                path = path.replace(`{${input.name}}`, () => encodeURIComponent(input.value));
            } else if (input.value && input.dataset.in === "query") {
                query.append(input.name, input.value);
            } else if (input.value) {
                headers[input.name] = input.value;
            }
        }
        const body = form.elements.body ? form.elements.body.value : undefined;
        if (body !== undefined) {
            headers["Content-Type"] = "application/json";
        }
        const url = location.origin + FOLDER + path + (query.size ? `?${query}` : "");
        return { method: form.dataset.method, url, headers, body };
    }

    /** Quote a text for a POSIX shell. */
    function quote(text) {
        return `'${text.replaceAll("'", "'\\''")}'`;
    }

    function getCurl({ method, url, headers, body }) {
        const parts = ["curl", "-X", method, quote(url)];
        for (const [name, value] of Object.entries(headers)) {
            parts.push("-H", quote(`${name}: ${value}`));
        }
        if (body !== undefined) {
            parts.push("--data-binary", quote(body));
        }
        return parts.join(" ");
    }

    function showCurl(form) {
        form.querySelector(".bj_api_docs_curl").textContent = getCurl(getRequest(form));
    }

    async function send(form) {
        const { method, url, headers, body } = getRequest(form);
        const [answer, status, content] = ["answer", "status", "body"].map((name) =>
            form.querySelector(`.bj_api_docs_${name}`)
        );
        answer.hidden = false;
        status.textContent = "…";
        content.textContent = "";
        const started = performance.now();
        try {
            const response = await fetch(url, { method, headers, body, credentials: "omit", cache: "no-store" });
            const text = await response.text();
            const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`);
            const duration = Math.round(performance.now() - started);
            status.textContent = [`${response.status} ${response.statusText} (${duration} ms)`, ...lines].join("\n");
            content.textContent = format(text);
        } catch (error) {
            status.textContent = String(error);
        }
    }

    function format(text) {
        try {
            return JSON.stringify(JSON.parse(text), null, 2);
        } catch {
            return text;
        }
    }

    /** Ask for the page again, with the credentials, and keep those in the new form. */
    async function reload() {
        const response = await fetch(location.pathname, { headers: getCredentials(), cache: "no-store" });
        if (!response.ok) {
            return;
        }
        const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("page");
        const credentials = document.getElementById("credentials");
        page.replaceChildren(...fresh.childNodes);
        document.getElementById("credentials").replaceWith(credentials);
    }

    /** Open the first operation of the endpoint that the address names. */
    function follow() {
        const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
        if (target) {
            target.scrollIntoView();
        }
    }

    page.addEventListener("submit", (event) => {
        event.preventDefault();
        event.target.id === "credentials" ? reload() : send(event.target);
    });
    page.addEventListener("input", (event) => {
        const form = event.target.closest(".bj_api_docs_try");
        const open = form ? [form] : page.querySelectorAll("details[open] .bj_api_docs_try");
        open.forEach(showCurl);
    });
    page.addEventListener(
        "toggle",
        (event) => event.target.querySelectorAll(".bj_api_docs_try").forEach(showCurl),
        true
    );
    page.addEventListener("click", (event) => {
        const form = event.target.matches(".bj_api_docs_copy") && event.target.closest(".bj_api_docs_try");
        if (form) {
            navigator.clipboard?.writeText(getCurl(getRequest(form)));
        }
    });
    follow();
})();
