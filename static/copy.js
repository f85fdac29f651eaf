// Buttons that copy text.

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS the Clipboard API works on localhost only.
    const area = document.createElement('textarea');
    area.textContent = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    return copied;
  }
}

/** Copies a text for a button, which says for a moment whether it was copied. */
export async function copyBy(button, text) {
  button.dataset.label ??= button.textContent;
  button.textContent = (await copy(text)) ? 'Copied' : 'Not copied';
  setTimeout(() => (button.textContent = button.dataset.label), 2000);
}
