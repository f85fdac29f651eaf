//! Programs that send a first event, for the empty feed.

/// A program, or what to type into a terminal. The address of Footfall goes between its two parts.
pub struct Snippet {
    /// For the ids of elements.
    pub id: &'static str,
    pub name: &'static str,
    before: &'static str,
    after: &'static str,
    /// What it needs, if that is not plain.
    pub note: &'static str,
}

impl Snippet {
    /// Without the line break at its start, which only the source has.
    pub fn before(&self) -> &'static str {
        self.before.trim_start_matches('\n')
    }

    pub fn after(&self) -> &'static str {
        self.after.trim_end()
    }
}

/// In the order of their tabs.
pub const SNIPPETS: [Snippet; 5] = [
    Snippet {
        id: "curl",
        name: "curl",
        before: r#"curl -H 'Content-Type: application/json' -d '{"user":"Ann","action":"login"}' "#,
        after: "/api/v1/events",
        note: "",
    },
    Snippet {
        id: "javascript",
        name: "JavaScript",
        before: r"
const answer = await fetch('",
        after: r"/api/v1/events', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify({ user: 'Ann', action: 'login' }),
});
console.log(answer.status, await answer.json());
",
        note: "Save it as first.mjs and run node first.mjs, or paste it into this page's console.",
    },
    Snippet {
        id: "python",
        name: "Python",
        before: r"
import json, urllib.request

event = {'user': 'Ann', 'action': 'login'}
request = urllib.request.Request(
    '",
        after: r"/api/v1/events',
    data=json.dumps(event).encode(),
    headers={'Content-Type': 'application/json'},
)
print(urllib.request.urlopen(request).read().decode())
",
        note: "",
    },
    Snippet {
        id: "go",
        name: "Go",
        before: r#"
package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
)

func main() {
	event := strings.NewReader(`{"user":"Ann","action":"login"}`)
	answer, err := http.Post(""#,
        after: r#"/api/v1/events", "application/json", event)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	receipt, _ := io.ReadAll(answer.Body)
	fmt.Println(answer.Status, string(receipt))
}
"#,
        note: "",
    },
    Snippet {
        id: "segment",
        name: "Segment SDK",
        before: r"
# pip install segment-analytics-python
import segment.analytics as analytics

analytics.host = '",
        after: r"'
analytics.write_key = 'any'
analytics.track('Ann', 'login')
analytics.shutdown()
",
        note: "Any of Segment's SDKs can send to Footfall: set its host. The write key may be any text.",
    },
];
