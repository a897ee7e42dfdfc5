// Before anything is drawn: what needs a script is shown only where scripts run.
document.documentElement.classList.add("js");
