// An element with its attributes and children. Comes before every component's own script.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (name in made && name !== "role") made[name] = value;
    else made.setAttribute(name, value);
  made.append(...children);
  return made;
}

