import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.postkeeper.v1.EnqueueRequest;
import io.postkeeper.v1.EnqueueResponse;
import io.postkeeper.v1.Message;
import io.postkeeper.v1.MessageServiceGrpc;
import io.postkeeper.v1.MessageServiceGrpc.MessageServiceBlockingStub;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/**
 * Puts each line of standard input into a queue: Producer QUEUE [NAME]
 *
 * <p>Lines travel in batches. Each batch has a request_id, so a batch whose answer got lost is sent again without being
 * written twice. NAME names this input: if the program is killed and run again within ten minutes with the same input
 * and the same NAME, what was already in is not written again.
 */
final class Producer {
  private static final int BATCH_LINES = 500;
  private static final int BATCH_BYTES = 256 * 1024;
  private static final long DEADLINE_SECONDS = 30;
  private static final long PAUSE_MILLIS = 1_000;
  /** With a server that is gone or full; less than the ten minutes for which it knows a request_id. */
  private static final long PATIENCE_SECONDS = 300;

  private final MessageServiceBlockingStub stub;
  private final String queue;
  private final String name;
  private int number = 0;
  private long count = 0;

  private Producer(ManagedChannel channel, String queue, String name) {
    this.stub = MessageServiceGrpc.newBlockingStub(channel);
    this.queue = queue;
    this.name = name;
  }

  /** Returns how many messages are durably in the queue. The same lines make the same batches: that lets NAME work. */
  private long produce(BufferedReader input) throws IOException, InterruptedException {
    EnqueueRequest.Builder batch = EnqueueRequest.newBuilder();
    int size = 0;
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      int lines = batch.getMessagesCount();
      if (lines > 0 && (lines == BATCH_LINES || size + line.length() > BATCH_BYTES)) {
        enqueue(batch);
        batch = EnqueueRequest.newBuilder();
        size = 0;
      }
      ByteString body = ByteString.copyFrom(line, StandardCharsets.ISO_8859_1);
      batch.addMessages(Message.newBuilder().setBody(body).setContentType("text/plain"));
      size += line.length();
    }
    if (batch.getMessagesCount() > 0) {
      enqueue(batch);
    }
    return count;
  }

  private void enqueue(EnqueueRequest.Builder batch) throws InterruptedException {
    EnqueueRequest request = batch.setQueue(queue).setRequestId(name + "-" + number++).build();
    count += enqueue(request).getMessageIdsCount();
  }

  /** Sends the very same request until it is in. gRPC repeats a lost call by itself; this is for longer troubles. */
  private EnqueueResponse enqueue(EnqueueRequest request) throws InterruptedException {
    long giveUpAt = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
    while (true) {
      try {
        return stub.withDeadlineAfter(DEADLINE_SECONDS, TimeUnit.SECONDS).enqueue(request);
      } catch (StatusRuntimeException error) {
        if (!Connection.isWorthRepeating(error) || System.nanoTime() - giveUpAt > 0) {
          throw error;
        }
        System.err.println("producer: trying again; " + Connection.explain(error));
        Thread.sleep(PAUSE_MILLIS);
      }
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 1 && arguments.length != 2) {
      System.err.println("usage: Producer QUEUE [NAME]");
      System.exit(2);
    }
    String name = arguments.length == 2 ? arguments[1] : UUID.randomUUID().toString();
    try {
      ManagedChannel channel = Connection.open();
      // Latin-1 keeps every byte as it is.
      BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.ISO_8859_1));
      System.out.println(new Producer(channel, arguments[0], name).produce(input) + " messages enqueued");
      channel.shutdownNow();
    } catch (IOException | StatusRuntimeException error) {
      System.err.println("producer: " + Connection.explain(error));
      System.exit(1);
    }
  }
}
