// Runs once in the HTML component that holds the words of a sentence: a click on one is sent with the characters it covers.
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-start]');
  if (button) trigger('click', {start: Number(button.dataset.start), end: Number(button.dataset.end)});
});
