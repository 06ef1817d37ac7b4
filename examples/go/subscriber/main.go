// Prints what is published on a topic and remembers how far it got: subscriber TOPIC POSITION_FILE
//
// Started again with the same file it goes on behind the last message it printed: none is missed, and only what was
// printed but not yet noted (a crash between the two) comes again. Without the file it begins at the oldest message
// kept. It can be ended at any moment, also with kill -9.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"postkeeper/examples/connection"
	pb "postkeeper/v1"
)

const reopenAfter = time.Second

// handle is the work on one message.
func handle(message *pb.TopicMessage) error {
	_, err := fmt.Printf("%s\n", message.Message.Body)
	return err
}

func readPosition(file string) (string, error) {
	position, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(position)), err
}

// writePosition leaves, also at a crash, the old position or the new one, whole.
func writePosition(file, position string) error {
	out, err := os.Create(file + ".new")
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := fmt.Fprintln(out, position); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// subscribe is one stream, until it breaks.
func subscribe(client pb.MessageServiceClient, topic, file string) error {
	ctx, cancel := context.WithCancel(context.Background()) // no deadline: pings notice a dead server
	defer cancel()
	position, err := readPosition(file)
	if err != nil {
		return err
	}
	start := &pb.Start{At: &pb.Start_Earliest{Earliest: true}}
	if position != "" {
		start = &pb.Start{At: &pb.Start_After{After: position}}
	}
	stream, err := client.Subscribe(ctx, &pb.SubscribeRequest{Topic: topic, Start: start, Subscriber: "go-subscriber"})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		for _, message := range response.Messages {
			if err := handle(message); err != nil {
				return err
			}
		}
		if response.Position != "" && response.Position != position {
			position = response.Position
			if err := writePosition(file, position); err != nil {
				return err
			}
		}
	}
}

func run(topic, file string) error {
	conn, err := connection.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	client := pb.NewMessageServiceClient(conn)
	for {
		if err := subscribe(client, topic, file); err != nil {
			if !connection.IsWorthRepeating(err) {
				return err
			}
			fmt.Fprintf(os.Stderr, "subscriber: opening a new stream; %s\n", connection.Explain(err))
		}
		time.Sleep(reopenAfter)
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: subscriber TOPIC POSITION_FILE")
		os.Exit(2)
	}
	err := run(os.Args[1], os.Args[2])
	hint := ""
	if code := status.Code(err); code == codes.OutOfRange || code == codes.FailedPrecondition {
		hint = ". To begin again at the oldest message kept: rm " + os.Args[2]
	}
	fmt.Fprintf(os.Stderr, "subscriber: %s%s\n", connection.Explain(err), hint)
	os.Exit(1)
}
