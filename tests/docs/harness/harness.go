package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"check/receiver"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		part := strings.Split(lines.Text(), "\t")
		body, err := base64.StdEncoding.DecodeString(part[4])
		if err != nil {
			panic(err)
		}
		if receiver.IsGenuine(part[0], part[1], part[2], part[3], body) {
			fmt.Println("yes")
		} else {
			fmt.Println("no")
		}
	}
}
