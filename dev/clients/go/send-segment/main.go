// Segment's library for Go. Usage: send-segment URL SENDER COUNT. Ends when all of its messages were taken.
package main

import (
	"fmt"
	"io"
	"log"
	"sync"
	"time"

	"footfall/clients/turns"

	analytics "gopkg.in/segmentio/analytics-go.v3"
)

type callback struct{ waiting sync.WaitGroup }

func (c *callback) Success(analytics.Message) { c.waiting.Done() }

func (c *callback) Failure(message analytics.Message, err error) {
	log.Fatalf("%v: %v", message, err)
}

func main() {
	url, sender, count := turns.Arguments()
	taken := &callback{}
	// It tries 10 times: 30 s, as long as the outages that it meets.
	client, err := analytics.NewWithConfig("write-key", analytics.Config{
		Endpoint:   url,
		BatchSize:  100,
		Interval:   500 * time.Millisecond,
		RetryAfter: func(int) time.Duration { return 3 * time.Second },
		Callback:   taken,
		Logger:     analytics.StdLogger(log.New(io.Discard, "", 0)),
	})
	if err != nil {
		log.Fatal(err)
	}
	taken.waiting.Add(count)
	turns.Each(count, func(first, end int) {
		for number := first; number < end; number++ {
			err := client.Enqueue(analytics.Track{
				UserId:     fmt.Sprintf("%s-%d", sender, number%7),
				Event:      "Clicked",
				Properties: analytics.NewProperties().Set("number", number),
			})
			if err != nil {
				log.Fatal(err)
			}
		}
	})
	// Close would drop what waits to be sent again.
	taken.waiting.Wait()
	client.Close()
}
