// The CloudEvents SDK for Go, in both modes, with its own retries. Usage: send-cloudevents URL SENDER COUNT
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"footfall/clients/turns"

	cloudevents "github.com/cloudevents/sdk-go/v2"
)

func main() {
	url, sender, count := turns.Arguments()
	client, err := cloudevents.NewClientHTTP()
	if err != nil {
		log.Fatal(err)
	}

	binary := cloudevents.ContextWithTarget(context.Background(), url+"/api/v1/events")
	binary = cloudevents.ContextWithRetriesConstantBackoff(binary, 500*time.Millisecond, 100)
	structured := cloudevents.WithEncodingStructured(binary)
	turns.Each(count, func(first, end int) {
		for number := first; number < end; number++ {
			event := cloudevents.NewEvent()
			event.SetID(fmt.Sprintf("%s-%d", sender, number))
			event.SetSource("/interop/go")
			event.SetType("com.example.click")
			event.SetData(cloudevents.ApplicationJSON, turns.Of(sender, number))
			ctx := binary
			if number%2 == 0 {
				ctx = structured
			}
			if result := client.Send(ctx, event); !cloudevents.IsACK(result) {
				log.Fatal(result)
			}
		}
	})
}
