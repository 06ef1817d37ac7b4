import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.postkeeper.v1.ConsumeRequest;
import io.postkeeper.v1.ConsumeResponse;
import io.postkeeper.v1.Credit;
import io.postkeeper.v1.Delivery;
import io.postkeeper.v1.MessageServiceGrpc;
import io.postkeeper.v1.MessageServiceGrpc.MessageServiceStub;
import io.postkeeper.v1.Nacks;
import io.postkeeper.v1.Open;
import io.postkeeper.v1.SettleError;
import io.postkeeper.v1.SettleFailure;
import io.postkeeper.v1.Settled;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * Works on the messages of a queue until SIGTERM or Ctrl-C: Worker QUEUE
 *
 * <p>Shows a Consume stream: credit bounds what is held at a time, the server keeps the leases while the stream lives,
 * acks travel on the stream. A broken stream is opened again and what had no answer is settled again. At SIGTERM the
 * worker takes no more, finishes the message in hand, settles it and exits with 0; what it held besides is given back
 * uncounted. Killed with -9, its messages go to other workers when their leases lapse.
 */
final class Worker {
  private static final int HELD_MESSAGES = 10;
  private static final long REOPEN_MILLIS = 1_000;
  private static final long DRAIN_MILLIS = 20_000; // below the 30 s after which Kubernetes kills
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
  private static final Object END = new Object();
  private static final Object WAKE_UP = new Object();

  /** The work. Throw, and the message is tried again later. */
  private static void handle(Delivery delivery) {
    if (delivery.getMessage().getBody().isEmpty()) {
      throw new IllegalArgumentException("an empty message");
    }
    OUT.println("attempt " + delivery.getAttempt() + ": " + delivery.getMessage().getBody().toStringUtf8());
  }

  private final String source;
  /** What the main thread waits for: responses, the error or the END of the stream, and WAKE_UP at a signal. */
  private final BlockingQueue<Object> events = new LinkedBlockingQueue<>(); // as long as the credit lets it become
  private volatile boolean isStopping = false;

  // Touched by the main thread only.
  /** By sequence: settling frames without a Settled. */
  private final Map<Long, ConsumeRequest> unanswered = new TreeMap<>();
  private StreamObserver<ConsumeRequest> stream;
  private boolean isHalfClosed;
  private long sequence = 0;

  private Worker(String source) {
    this.source = source;
  }

  /** In the thread that Java starts at a signal; the program ends when the last such thread does, so this waits. */
  private void stop(Thread main) {
    isStopping = true;
    events.add(WAKE_UP);
    try {
      main.join(DRAIN_MILLIS);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
    System.err.println("worker: not drained within " + DRAIN_MILLIS / 1_000 + " s; what it held comes again");
    Runtime.getRuntime().halt(1);
  }

  private void run() throws IOException, InterruptedException {
    ManagedChannel channel = Connection.open();
    MessageServiceStub stub = MessageServiceGrpc.newStub(channel);
    while (true) {
      try {
        consume(stub);
      } catch (StatusRuntimeException error) {
        if (!Connection.isWorthRepeating(error)) {
          throw error;
        }
        System.err.println("worker: opening a new stream; " + Connection.explain(error));
      }
      if (isStopping && unanswered.isEmpty()) {
        channel.shutdownNow();
        return;
      }
      Thread.sleep(REOPEN_MILLIS);
      channel.resetConnectBackoff();
    }
  }

  /** One stream: who we are, what the last stream left unanswered, then what comes. */
  private void consume(MessageServiceStub stub) throws InterruptedException {
    events.clear();
    isHalfClosed = false;
    stream = stub.consume(new Receiver()); // no deadline: it lives as long as the worker. Pings notice a dead server.
    Open.Builder open = Open.newBuilder().setSource(source).setConsumer("java-worker").setKeepLeases(true);
    open.setCredit(Credit.newBuilder().setMessages(HELD_MESSAGES));
    stream.onNext(ConsumeRequest.newBuilder().setOpen(open).build());
    unanswered.values().forEach(stream::onNext);
    if (isStopping) {
      drain();
    }
    for (Object event = events.take(); event != END; event = events.take()) {
      if (event instanceof StatusRuntimeException) {
        throw (StatusRuntimeException) event;
      }
      if (event instanceof ConsumeResponse) {
        act((ConsumeResponse) event);
      }
      if (isStopping) {
        drain();
      }
    }
  }

  private void act(ConsumeResponse response) {
    switch (response.getFrameCase()) {
      case DELIVERIES:
        workOn(response.getDeliveries().getDeliveriesList());
        break;
      case SETTLED:
        noteSettled(response.getSettled());
        break;
      case DRAINING:
        drain(); // the server goes away, or wants the stream to move; a new stream goes on
        break;
      default:
        break;
    }
  }

  private void workOn(List<Delivery> deliveries) {
    for (Delivery delivery : deliveries) {
      if (isStopping) {
        return;
      }
      ConsumeRequest.Builder frame = ConsumeRequest.newBuilder();
      try {
        handle(delivery);
        frame.addAckTokens(delivery.getLeaseToken());
      } catch (RuntimeException error) { // whatever it is, the message must not be lost
        String reason = String.valueOf(error.getMessage());
        frame.addNacks(
            Nacks.newBuilder()
                .addLeaseTokens(delivery.getLeaseToken())
                .setReason(reason.substring(0, Math.min(reason.length(), 250))));
      }
      settle(frame.setSequence(++sequence).build());
    }
  }

  private void settle(ConsumeRequest frame) {
    unanswered.put(frame.getSequence(), frame);
    if (!isHalfClosed) {
      stream.onNext(frame);
    }
  }

  private void noteSettled(Settled settled) {
    unanswered.remove(settled.getSequence());
    for (SettleFailure failure : settled.getFailuresList()) {
      if (failure.getError() != SettleError.SETTLE_ERROR_ALREADY_SETTLED) {
        System.err.println("worker: not settled, may be done twice: " + failure.getError());
      }
    }
  }

  private void drain() {
    if (!isHalfClosed) {
      stream.onNext(ConsumeRequest.newBuilder().setDrain(true).build());
      stream.onCompleted();
      isHalfClosed = true;
    }
  }

  /** Of one stream; called by gRPC's threads. */
  private final class Receiver implements StreamObserver<ConsumeResponse> {
    @Override
    public void onNext(ConsumeResponse response) {
      events.add(response);
    }

    @Override
    public void onError(Throwable error) { // a StatusRuntimeException: gRPC's generated stubs give nothing else
      events.add(error);
    }

    @Override
    public void onCompleted() {
      events.add(END);
    }
  }

  public static void main(String[] arguments) throws InterruptedException {
    if (arguments.length != 1) {
      System.err.println("usage: Worker QUEUE");
      System.exit(2);
    }
    Worker worker = new Worker(arguments[0]);
    Thread main = Thread.currentThread();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> worker.stop(main)));
    int code = 0;
    try {
      worker.run();
    } catch (IOException | StatusRuntimeException error) {
      System.err.println("worker: " + Connection.explain(error));
      code = 1;
    }
    Runtime.getRuntime().halt(code); // exit() would wait for the thread above
  }
}
