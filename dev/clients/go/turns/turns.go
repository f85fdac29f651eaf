// Package turns has what the programs here send. Each sends a few events at a time and waits for a line on its input
// before, so that dev/interop decides when.
package turns

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
)

const turn = 20

// Event is what each program sends.
type Event struct {
	ID     string `json:"id,omitempty"`
	User   string `json:"user"`
	Action string `json:"action"`
	Number int    `json:"number"`
}

// Of returns an event without an id.
func Of(sender string, number int) Event {
	return Event{User: fmt.Sprintf("%s-%d", sender, number%7), Action: "Clicked", Number: number}
}

// Arguments returns the server's address, the sender's name and the number of events.
func Arguments() (string, string, int) {
	count, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	return os.Args[1], os.Args[2], count
}

// Each calls send with the numbers of each turn's events.
func Each(count int, send func(first, end int)) {
	lines := bufio.NewScanner(os.Stdin)
	for first := 0; first < count; first += turn {
		lines.Scan()
		send(first, min(first+turn, count))
	}
}
