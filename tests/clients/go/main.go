// Go's net/http with its default client: `client URL [KEY]`.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], nil)
	if err != nil {
		fail(err)
	}
	if len(os.Args) > 2 {
		request.Header.Set("Authorization", "Bearer "+os.Args[2])
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		fail(err)
	}
	line, err := json.Marshal(map[string]any{"status": answer.StatusCode, "body": string(body), "version": answer.Proto})
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
