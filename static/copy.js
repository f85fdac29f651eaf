// Buttons that copy text.

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without TLS there is no clipboard but for this machine's own address.
    const area = document.createElement('textarea');
    area.textContent = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    return copied;
  }
}

/** Makes a button copy what `text()` says. */
export function copies(button, text) {
  const label = button.textContent;
  button.addEventListener('click', async () => {
    button.textContent = (await copy(text())) ? 'Copied' : 'Not copied';
    setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}
