// Works on the messages of a queue until SIGTERM or Ctrl-C: worker QUEUE
//
// Shows a Consume stream: credit bounds what is held at a time, the server keeps the leases while the stream lives,
// acks travel on the stream. A broken stream is opened again and what had no answer is settled again. At SIGTERM the
// worker takes no more, finishes the message in hand, settles it and exits with 0; what it held besides is given back
// uncounted. Killed with -9, its messages go to other workers when their leases lapse.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"postkeeper/examples/connection"
	pb "postkeeper/v1"
)

const (
	heldMessages = 10
	reopenAfter  = time.Second
	drainTimeout = 20 * time.Second // below the 30 s after which Kubernetes kills
)

// handle is the work. With an error the message is tried again later.
func handle(delivery *pb.Delivery) error {
	if len(delivery.Message.Body) == 0 {
		return errors.New("an empty message")
	}
	_, err := fmt.Printf("attempt %d: %s\n", delivery.Attempt, delivery.Message.Body)
	return err
}

type worker struct {
	source     string
	client     pb.MessageServiceClient
	stopping   context.Context      // done at a signal
	unanswered []*pb.ConsumeRequest // settling frames without a Settled, in order
	sequence   int64
}

func (w *worker) run() error {
	for {
		if err := w.consume(); err != nil {
			if !connection.IsWorthRepeating(err) {
				return err
			}
			fmt.Fprintf(os.Stderr, "worker: opening a new stream; %s\n", connection.Explain(err))
		}
		if w.isStopping() && len(w.unanswered) == 0 {
			return nil
		}
		time.Sleep(reopenAfter)
	}
}

func (w *worker) isStopping() bool {
	return w.stopping.Err() != nil
}

// consume is one stream: who we are, what the last stream left unanswered, then what comes. All frames are sent from
// here. If one can't be sent, the end of the stream says why.
func (w *worker) consume() error {
	ctx, cancel := context.WithCancel(context.Background()) // no deadline: pings notice a dead server
	defer cancel()
	stream, err := w.client.Consume(ctx)
	if err != nil {
		return err
	}
	stream.Send(&pb.ConsumeRequest{Open: &pb.Open{
		Source: w.source, Consumer: "go-worker", KeepLeases: true, Credit: &pb.Credit{Messages: heldMessages}}})
	for _, frame := range w.unanswered {
		stream.Send(frame)
	}
	responses, ended := receive(ctx, stream)
	stopping := w.stopping.Done()
	for {
		select {
		case <-stopping:
			drain(stream)
			stopping = nil
		case response := <-responses:
			switch frame := response.Frame.(type) {
			case *pb.ConsumeResponse_Deliveries:
				w.workOn(stream, frame.Deliveries.Deliveries)
			case *pb.ConsumeResponse_Settled:
				w.noteSettled(frame.Settled)
			case *pb.ConsumeResponse_Draining:
				drain(stream) // the server goes away, or wants the stream to move; a new stream goes on
				stopping = nil
			}
		case err := <-ended:
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// receive reads the stream in the background, until its end or that of ctx.
func receive(ctx context.Context, stream pb.MessageService_ConsumeClient) (<-chan *pb.ConsumeResponse, <-chan error) {
	responses, ended := make(chan *pb.ConsumeResponse), make(chan error, 1)
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case responses <- response:
			case <-ctx.Done():
				return
			}
		}
	}()
	return responses, ended
}

func drain(stream pb.MessageService_ConsumeClient) {
	stream.Send(&pb.ConsumeRequest{Drain: true})
	stream.CloseSend()
}

func (w *worker) workOn(stream pb.MessageService_ConsumeClient, deliveries []*pb.Delivery) {
	for _, delivery := range deliveries {
		if w.isStopping() {
			return
		}
		frame := &pb.ConsumeRequest{}
		if err := handle(delivery); err == nil {
			frame.AckTokens = []string{delivery.LeaseToken}
		} else {
			frame.Nacks = []*pb.Nacks{{LeaseTokens: []string{delivery.LeaseToken}, Reason: fmt.Sprintf("%.250s", err)}}
		}
		w.sequence++
		frame.Sequence = w.sequence
		w.unanswered = append(w.unanswered, frame)
		stream.Send(frame)
	}
}

func (w *worker) noteSettled(settled *pb.Settled) {
	for len(w.unanswered) > 0 && w.unanswered[0].Sequence <= settled.Sequence {
		w.unanswered = w.unanswered[1:]
	}
	for _, failure := range settled.Failures {
		if failure.Error != pb.SettleError_SETTLE_ERROR_ALREADY_SETTLED {
			fmt.Fprintf(os.Stderr, "worker: not settled, may be done twice: %s\n", failure.Error)
		}
	}
}

func run(source string) error {
	conn, err := connection.Connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	stopping, release := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stopping.Done()
		release() // a second signal ends the program at once
		time.Sleep(drainTimeout)
		fmt.Fprintf(os.Stderr, "worker: not drained within %d s; what it held comes again\n", drainTimeout/time.Second)
		os.Exit(1)
	}()
	w := &worker{source: source, client: pb.NewMessageServiceClient(conn), stopping: stopping}
	return w.run()
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: worker QUEUE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "worker: %s\n", connection.Explain(err))
		os.Exit(1)
	}
}
