// launchdarkly/eventsource: reconnects by itself, from the last id. Without an error handler it waits at the first end of
// a connection until somebody takes the error from stream.Errors.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/launchdarkly/eventsource"
)

func goOn(error) eventsource.StreamErrorHandlerResult {
	return eventsource.StreamErrorHandlerResult{CloseNow: false}
}

func main() {
	stream, err := eventsource.SubscribeWithURL(os.Args[1],
		eventsource.StreamOptionErrorHandler(goOn),
		eventsource.StreamOptionReadTimeout(time.Minute))
	if err != nil {
		log.Fatal(err)
	}
	for event := range stream.Events {
		var record struct{ Partition, Offset int64 }
		if err := json.Unmarshal([]byte(event.Data()), &record); err != nil {
			log.Fatal(err)
		}
		if event.Event() == "" {
			fmt.Println(record.Partition, record.Offset)
		}
	}
}
