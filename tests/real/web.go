// SPDX-License-Identifier: Apache-2.0

// web is an HTTP client and server with Go's own network stack: no libc, one epoll for everything.
//
//	web get URL COUNT      gets URL COUNT times at once, each on a connection of its own; prints the sums of the bodies
//	web serve ADDRESS      answers every request with the address of who asks
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

func get(url string) (string, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, answer.Body); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %x", answer.StatusCode, sum.Sum(nil)), nil
}

func getAll(url string, count int) error {
	type result struct {
		sum string
		err error
	}
	results := make(chan result)
	for i := 0; i < count; i++ {
		go func() {
			sum, err := get(url)
			results <- result{sum, err}
		}()
	}
	for i := 0; i < count; i++ {
		one := <-results
		if one.err != nil {
			return one.err
		}
		fmt.Println(one.sum)
	}
	return nil
}

func serve(address string) error {
	http.HandleFunc("/", func(out http.ResponseWriter, in *http.Request) {
		host, _, _ := net.SplitHostPort(in.RemoteAddr)
		fmt.Fprintln(out, host)
	})
	return http.ListenAndServe(address, nil)
}

func main() {
	err := fmt.Errorf("usage: web get URL COUNT | web serve ADDRESS")
	if len(os.Args) == 4 && os.Args[1] == "get" {
		var count int
		if count, err = strconv.Atoi(os.Args[3]); err == nil {
			err = getAll(os.Args[2], count)
		}
	} else if len(os.Args) == 3 && os.Args[1] == "serve" {
		err = serve(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}
