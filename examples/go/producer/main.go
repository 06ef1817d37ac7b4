// Puts each line of standard input into a queue: producer QUEUE [NAME]
//
// Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
// written twice. NAME names this input: if the program is killed and run again within ten minutes with the same input
// and the same NAME, what was already in is not written again.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"time"

	"postkeeper/examples/connection"
	pb "postkeeper/v1"
)

const (
	batchLines = 500
	batchBytes = 256 * 1024
	deadline   = 30 * time.Second
	pause      = time.Second
	// With a server that is gone or full; less than the ten minutes for which it knows a request_id.
	patience = 300 * time.Second
)

// forEachBatch calls send with the lines of input. The same lines make the same batches, which is what lets NAME work.
func forEachBatch(input io.Reader, send func([]*pb.Message) error) error {
	reader := bufio.NewReader(input)
	var batch []*pb.Message
	size := 0
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return err
		}
		isLast := err == io.EOF
		if isLast && len(line) == 0 {
			break
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(batch) > 0 && (len(batch) == batchLines || size+len(line) > batchBytes) {
			if err := send(batch); err != nil {
				return err
			}
			batch, size = nil, 0
		}
		batch = append(batch, &pb.Message{Body: line, ContentType: "text/plain"})
		size += len(line)
		if isLast {
			break
		}
	}
	if len(batch) > 0 {
		return send(batch)
	}
	return nil
}

// enqueue sends the very same request until it is in. gRPC repeats a lost call by itself; this is for longer troubles.
func enqueue(client pb.MessageServiceClient, request *pb.EnqueueRequest) (*pb.EnqueueResponse, error) {
	giveUpAt := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		response, err := client.Enqueue(ctx, request)
		cancel()
		if err == nil || !connection.IsWorthRepeating(err) || time.Now().After(giveUpAt) {
			return response, err
		}
		fmt.Fprintf(os.Stderr, "producer: trying again; %s\n", connection.Explain(err))
		time.Sleep(pause)
	}
}

// produce returns how many messages are durably in the queue.
func produce(queue, name string, input io.Reader) (int, error) {
	conn, err := connection.Connect()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	client := pb.NewMessageServiceClient(conn)
	count, number := 0, 0
	err = forEachBatch(input, func(batch []*pb.Message) error {
		request := &pb.EnqueueRequest{Queue: queue, Messages: batch, RequestId: fmt.Sprintf("%s-%d", name, number)}
		number++
		response, err := enqueue(client, request)
		count += len(response.GetMessageIds())
		return err
	})
	return count, err
}

func randomName() string {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		panic(err)
	}
	return fmt.Sprintf("%x", random)
}

func main() {
	if len(os.Args) != 2 && len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: producer QUEUE [NAME]")
		os.Exit(2)
	}
	name := randomName()
	if len(os.Args) == 3 {
		name = os.Args[2]
	}
	count, err := produce(os.Args[1], name, os.Stdin)
	if err != nil {
		fmt.Fprintf(os.Stderr, "producer: %s\n", connection.Explain(err))
		os.Exit(1)
	}
	fmt.Printf("%d messages enqueued\n", count)
}
