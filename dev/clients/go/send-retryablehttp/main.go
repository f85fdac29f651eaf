// net/http, with HashiCorp's go-retryablehttp. Usage: send-retryablehttp URL SENDER COUNT
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"time"

	"footfall/clients/turns"

	"github.com/hashicorp/go-retryablehttp"
)

func main() {
	url, sender, count := turns.Arguments()
	client := retryablehttp.NewClient()
	client.RetryMax = 100
	client.RetryWaitMin, client.RetryWaitMax = 200*time.Millisecond, 2*time.Second
	client.Logger = nil
	turns.Each(count, func(first, end int) {
		var events []turns.Event
		for number := first; number < end; number++ {
			event := turns.Of(sender, number)
			event.ID = fmt.Sprintf("%s-%d", sender, number)
			events = append(events, event)
		}
		body, err := json.Marshal(events)
		if err != nil {
			log.Fatal(err)
		}
		request, err := retryablehttp.NewRequest(http.MethodPost, url+"/api/v1/events", body)
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Prefer", "handling=strict")
		response, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			log.Fatal(response.Status)
		}
	})
}
