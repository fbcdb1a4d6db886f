package nb

import (
	"encoding/json"
	"fmt"

	"github.com/janpfeifer/gonb/gonbui"
)

// Notify shows a notification of the browser that the notebook is open in, for the end of a cell that takes long. The
// browser asks once whether it may; Firefox does so when the sign in its address bar is clicked. Where nobody watches
// ([HeadlessEnv], or no notebook) it does nothing. A notebook that is saved in the browser keeps an empty output of it.
func Notify(text string) { notebook.notify(text) }

func (s screen) notify(text string) {
	if !s.live {
		return
	}
	words, _ := json.Marshal(text) // of a string there is no error; its < and > are escaped, so that no tag can end the script
	id := "notify_" + gonbui.UniqueId()
	s.update(id, fmt.Sprintf(`<script>(async () => {
if (!("Notification" in window)) return;
if (Notification.permission === "default") await Notification.requestPermission();
if (Notification.permission === "granted") new Notification("Notebook", {body: %s});
})()</script>`, words))
	s.update(id, "")
}
