// find gives the last visible element of a kind whose text, label or value a string is,
// or a regular expression finds something in; null if there is none.
window.find = (css, text = /(?:)/) => {
    const matches = (said) => (typeof said === "string" && (typeof text === "string" ? said.trim() === text : text.test(said)));
    const visible = [...document.querySelectorAll(css)].filter((element) => element.checkVisibility());
    return visible.findLast((e) => [e.textContent, e.ariaLabel, e.title, e.value].some(matches)) ?? null;
};
