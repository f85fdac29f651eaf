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

/** Makes a button copy the text that `text()` returns. */
export function copies(button, text) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    button.textContent = (await copy(text())) ? 'Copied' : 'Not copied';
    setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}
