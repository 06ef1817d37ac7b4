import com.google.gson.Gson;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.net.ConnectException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** The way to postkeeperd, as every example takes it: a channel with the service's manners. */
final class Connection {
  private static final String DEFAULT_ADDRESS = "127.0.0.1:7411";
  private static final long CONNECT_SECONDS = 10;
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private Connection() {}

  /**
   * A channel that retries what may be retried, balances over replicas, and notices when the other side is gone.
   *
   * @throws ConnectException if nobody answers in time; calls would wait in silence until their deadline
   */
  static ManagedChannel open() throws IOException, InterruptedException {
    String given = System.getenv("POSTKEEPER_ADDRESS");
    String address = given == null || given.isEmpty() ? DEFAULT_ADDRESS : given;
    ManagedChannel channel =
        ManagedChannelBuilder.forTarget(address)
            .usePlaintext()
            .enableRetry()
            .defaultServiceConfig(serviceConfig())
            // postkeeperd allows a ping every 10 s, also without calls.
            .keepAliveTime(20, TimeUnit.SECONDS)
            .keepAliveTimeout(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            // postkeeperd is a neighbour; a web proxy is not the way to it.
            .proxyDetector(target -> null)
            .build();
    if (becomesReady(channel)) {
      return channel;
    }
    channel.shutdownNow();
    throw new ConnectException(
        "cannot reach postkeeperd at " + address + ". Is it running? Start it: postkeeperd");
  }

  /**
   * Whether a call or stream that ended with this may go well the next time: the way broke, or the service is full. For
   * calls that are safe to repeat only, as those with a request_id are.
   */
  static boolean isWorthRepeating(StatusRuntimeException error) {
    switch (error.getStatus().getCode()) {
      case UNAVAILABLE:
      case RESOURCE_EXHAUSTED:
      case DEADLINE_EXCEEDED:
        return true;
      case CANCELLED:
      case INTERNAL:
      case UNKNOWN:
        // What gRPC itself says of a broken connection or a server that ends. The service gives details with what it
        // says.
        return error.getTrailers() == null || !error.getTrailers().containsKey(DETAILS);
      default:
        return false;
    }
  }

  /** One line about a call that failed, or about a server that isn't there. */
  static String explain(Exception error) {
    if (!(error instanceof StatusRuntimeException)) {
      return error.getMessage();
    }
    Status status = ((StatusRuntimeException) error).getStatus();
    return status.getCode() + ": " + status.getDescription();
  }

  /** postkeeper/v1/service_config.json, which build.sh has put beside the classes. */
  @SuppressWarnings("unchecked")
  private static Map<String, ?> serviceConfig() throws IOException {
    try (Reader reader =
        new InputStreamReader(Connection.class.getResourceAsStream("service_config.json"), StandardCharsets.UTF_8)) {
      return new Gson().fromJson(reader, Map.class);
    }
  }

  private static boolean becomesReady(ManagedChannel channel) throws InterruptedException {
    long giveUpAt = System.nanoTime() + TimeUnit.SECONDS.toNanos(CONNECT_SECONDS);
    ConnectivityState state = channel.getState(true);
    while (state != ConnectivityState.READY) {
      CountDownLatch changed = new CountDownLatch(1);
      channel.notifyWhenStateChanged(state, changed::countDown);
      if (!changed.await(giveUpAt - System.nanoTime(), TimeUnit.NANOSECONDS)) {
        return false;
      }
      state = channel.getState(true);
    }
    return true;
  }
}
