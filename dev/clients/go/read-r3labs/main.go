// r3labs/sse: reconnects by itself, from the last id, when a connection breaks. When the server ends the stream (after
// `bye`), Subscribe returns, so a loop calls it again; the client keeps the id.
//
// What has come of an event when a connection breaks is handed over like a whole event: without data, with half of it, or
// with half of its id. So data that is no JSON is ignored, and the client resumes from the id before the last one, which
// was whole because something came behind it. What then comes again is told by its offset.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	// At an event of more than 64 KiB, the default, it would begin again and again.
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
