// The CloudEvents SDK for Go. It can send again by itself, the same event, when a connection breaks or the answer is 503.
// Usage: send-cloudevents URL ID binary|structured
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

func main() {
	client, err := cloudevents.NewClientHTTP()
	if err != nil {
		log.Fatal(err)
	}

	event := cloudevents.NewEvent()
	event.SetID(os.Args[2])
	event.SetSource("/interop/go")
	event.SetType("com.example.login")
	event.SetData(cloudevents.ApplicationJSON, map[string]string{"user": "Zoë", "action": "login"})

	ctx := cloudevents.ContextWithTarget(context.Background(), os.Args[1])
	ctx = cloudevents.ContextWithRetriesExponentialBackoff(ctx, 100*time.Millisecond, 5)
	if os.Args[3] == "structured" {
		ctx = cloudevents.WithEncodingStructured(ctx)
	}
	result := client.Send(ctx, event)
	if !cloudevents.IsACK(result) {
		log.Fatal(result)
	}
	fmt.Println(result)
}
