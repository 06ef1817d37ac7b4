import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.postkeeper.v1.MessageServiceGrpc;
import io.postkeeper.v1.MessageServiceGrpc.MessageServiceBlockingStub;
import io.postkeeper.v1.Start;
import io.postkeeper.v1.SubscribeRequest;
import io.postkeeper.v1.SubscribeResponse;
import io.postkeeper.v1.TopicMessage;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Iterator;

/**
 * Prints what is published on a topic and remembers how far it got: Subscriber TOPIC POSITION_FILE
 *
 * <p>Started again with the same file it goes on behind the last message it printed: none is missed, and only what was
 * printed but not yet noted (a crash between the two) comes again. Without the file it begins at the oldest message
 * kept. It can be ended at any moment, also with kill -9.
 */
final class Subscriber {
  private static final long REOPEN_MILLIS = 1_000;
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);

  private Subscriber() {}

  /** The work on one message. */
  private static void handle(TopicMessage message) {
    OUT.println(message.getMessage().getBody().toStringUtf8());
  }

  private static String readPosition(Path file) throws IOException {
    return Files.exists(file) ? Files.readString(file).trim() : "";
  }

  /** A crash leaves the old position or the new one, whole. */
  private static void writePosition(Path file, String position) throws IOException {
    Path fresh = Path.of(file + ".new");
    try (FileOutputStream out = new FileOutputStream(fresh.toFile())) {
      out.write((position + "\n").getBytes(StandardCharsets.US_ASCII));
      out.getFD().sync();
    }
    Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE);
  }

  /** One stream, until it breaks. */
  private static void subscribe(MessageServiceBlockingStub stub, String topic, Path file) throws IOException {
    String position = readPosition(file);
    Start.Builder start = Start.newBuilder();
    if (position.isEmpty()) {
      start.setEarliest(true);
    } else {
      start.setAfter(position);
    }
    SubscribeRequest request =
        SubscribeRequest.newBuilder().setTopic(topic).setStart(start).setSubscriber("java-subscriber").build();
    // No deadline: it lives as long as the subscriber. The channel's pings notice a dead server.
    for (Iterator<SubscribeResponse> responses = stub.subscribe(request); responses.hasNext(); ) {
      SubscribeResponse response = responses.next();
      response.getMessagesList().forEach(Subscriber::handle);
      if (!response.getPosition().isEmpty() && !response.getPosition().equals(position)) {
        position = response.getPosition();
        writePosition(file, position);
      }
    }
  }

  private static void run(String topic, Path file) throws IOException, InterruptedException {
    ManagedChannel channel = Connection.open();
    MessageServiceBlockingStub stub = MessageServiceGrpc.newBlockingStub(channel);
    while (true) {
      try {
        subscribe(stub, topic, file);
      } catch (StatusRuntimeException error) {
        if (!Connection.isWorthRepeating(error)) {
          throw error;
        }
        System.err.println("subscriber: opening a new stream; " + Connection.explain(error));
      }
      Thread.sleep(REOPEN_MILLIS);
      channel.resetConnectBackoff();
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 2) {
      System.err.println("usage: Subscriber TOPIC POSITION_FILE");
      System.exit(2);
    }
    try {
      run(arguments[0], Path.of(arguments[1]));
    } catch (IOException | StatusRuntimeException error) {
      Status.Code code = Status.fromThrowable(error).getCode();
      boolean isPositionLost = code == Status.Code.OUT_OF_RANGE || code == Status.Code.FAILED_PRECONDITION;
      String hint = isPositionLost ? ". To begin again at the oldest message kept: rm " + arguments[1] : "";
      System.err.println("subscriber: " + Connection.explain(error) + hint);
      System.exit(1);
    }
  }
}
