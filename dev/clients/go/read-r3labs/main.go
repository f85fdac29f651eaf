// r3labs/sse: reconnects by itself, from the last id, when a connection breaks. When the server ends the stream (after
// `bye`), Subscribe returns, so a loop calls it again; the client keeps the id.
//
// When a connection breaks, the received part of an event is delivered like a whole event: without data, with half of it,
// or with half of its id. So data that is not JSON is ignored, and the client resumes from the id before the last one,
// which was complete because more followed it. The offset identifies events that then arrive again.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	// With the default of 64 KiB it would reconnect again and again at a larger event.
	client := sse.NewClient(os.Args[1], sse.ClientMaxBufferSize(2*1024*1024))
	var id []byte
	next := map[int64]int64{} // by partition
	for {
		client.SubscribeRaw(func(msg *sse.Event) {
			client.LastEventID.Store(id)
			id = msg.ID

			var record struct{ Partition, Offset int64 }
			if err := json.Unmarshal(msg.Data, &record); err != nil {
				return
			}
			if len(msg.Event) == 0 && record.Offset >= next[record.Partition] {
				next[record.Partition] = record.Offset + 1
				fmt.Println(record.Partition, record.Offset)
			}
		})
		time.Sleep(time.Second)
	}
}
