// Package connection is the way to postkeeperd, as every example takes it: a connection with the service's manners.
package connection

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	defaultAddress = "127.0.0.1:7411"
	connectTimeout = 10 * time.Second
)

// A copy of postkeeper/v1/service_config.json. This release of grpc-go retries only if GRPC_GO_RETRY=on is set; later
// ones always do.
//
//go:embed service_config.json
var serviceConfig string

// Connect returns a connection that retries what may be retried, balances over replicas, and notices when the other
// side is gone. It fails if nobody answers within connectTimeout; calls would wait in silence until their deadline.
func Connect() (*grpc.ClientConn, error) {
	address := os.Getenv("POSTKEEPER_ADDRESS")
	if address == "" {
		address = defaultAddress
	}
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	// By default Go takes a name as one address; "dns:///" finds all replicas behind it.
	connection, err := grpc.DialContext(ctx, "dns:///"+address,
		grpc.WithInsecure(),
		grpc.WithBlock(),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// postkeeperd allows a ping every 10 s, also without calls.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// A server that restarts is found again soon.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second}),
		// postkeeperd is a neighbour; a web proxy in the environment is not the way to it.
		grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("cannot reach postkeeperd at %s. Is it running? Start it: postkeeperd", address)
	}
	return connection, nil
}

// IsWorthRepeating says whether a call or stream that ended with this may go well the next time: the way broke, or the
// service is full. For calls that are safe to repeat only, as those with a request_id are.
func IsWorthRepeating(err error) bool {
	ended, isOfCall := status.FromError(err)
	if !isOfCall {
		return false
	}
	switch ended.Code() {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
		return true
	case codes.Canceled, codes.Internal, codes.Unknown:
		// What gRPC itself says of a broken connection or a server that ends. The service gives details with what it
		// says.
		return len(ended.Proto().GetDetails()) == 0
	}
	return false
}

var wordBorder = regexp.MustCompile("([a-z])([A-Z])")

// Explain returns one line about a call that failed, or about a server that isn't there.
func Explain(err error) string {
	ended, isOfCall := status.FromError(err)
	if !isOfCall {
		return err.Error()
	}
	// NotFound, as the other languages say it: NOT_FOUND.
	return strings.ToUpper(wordBorder.ReplaceAllString(ended.Code().String(), "${1}_${2}")) + ": " + ended.Message()
}
