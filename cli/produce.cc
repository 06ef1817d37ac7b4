#include "cli/produce.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "cli/connection.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/protos.h"
#include "cli/text.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace postkeeper::cli {
namespace {

using Clock = std::chrono::steady_clock;

// The service answers at most 64 frames late; half of it is enough to keep it busy.
constexpr std::size_t kUnansweredFramesMax = 32;
// A frame is closed when it has reached either. The service takes 4,096 messages and 512 KiB; a single message above
// kFrameBytes goes alone.
constexpr int kFrameMessages = 1000;
constexpr std::size_t kFrameBytes = 256 << 10;
// Of one message in a frame, beside its own bytes.
constexpr std::size_t kFrameOverheadBytes = 6;

struct ToQueue {
  using Request = v1::EnqueueStreamRequest;
  using Response = v1::EnqueueStreamResponse;
  static constexpr std::string_view kVerb = "enqueue into ";
  static constexpr std::string_view kDone = "enqueued";
  static void SetTarget(Request& request, const std::string& target) { request.set_queue(target); }
  static auto Open(v1::MessageService::Stub& stub, grpc::ClientContext* context) { return stub.EnqueueStream(context); }
  static grpc::Status Call(v1::MessageService::Stub& stub, grpc::ClientContext* context, Request& frame,
                           Response& answer) {
    v1::EnqueueRequest request;
    v1::EnqueueResponse response;
    request.set_queue(frame.queue());
    request.set_request_id(frame.request_id());
    *request.mutable_messages() = frame.messages();
    const grpc::Status status = stub.Enqueue(context, request, &response);
    answer.mutable_message_ids()->Swap(response.mutable_message_ids());
    answer.mutable_duplicates()->Swap(response.mutable_duplicates());
    return status;
  }
};

struct ToTopic {
  using Request = v1::PublishStreamRequest;
  using Response = v1::PublishStreamResponse;
  static constexpr std::string_view kVerb = "publish to ";
  static constexpr std::string_view kDone = "published";
  static void SetTarget(Request& request, const std::string& target) { request.set_topic(target); }
  static auto Open(v1::MessageService::Stub& stub, grpc::ClientContext* context) { return stub.PublishStream(context); }
  static grpc::Status Call(v1::MessageService::Stub& stub, grpc::ClientContext* context, Request& frame,
                           Response& answer) {
    v1::PublishRequest request;
    v1::PublishResponse response;
    request.set_topic(frame.topic());
    request.set_request_id(frame.request_id());
    *request.mutable_messages() = frame.messages();
    const grpc::Status status = stub.Publish(context, request, &response);
    answer.mutable_message_ids()->Swap(response.mutable_message_ids());
    answer.mutable_duplicates()->Swap(response.mutable_duplicates());
    return status;
  }
};

// Cuts the input into frames.
template <typename Target>
class Framer {
 public:
  Framer(const ProduceOptions& options, BodySource& source)
      : options_(options), source_(source), request_id_(options.request_id.empty() ? RandomId() : options.request_id) {}

  // False at the end of the input. A frame ends when it is full, or when the next message would have to be waited for;
  // not so if the caller gave the request_id, since then the same input must give the same frames.
  absl::StatusOr<bool> Next(typename Target::Request& frame) {
    frame.Clear();
    std::size_t bytes = 0;
    for (;;) {
      if (!has_pending_) {
        const bool may_wait = frame.messages().empty() || !options_.request_id.empty();
        if (!may_wait && !source_.HasNext()) break;
        const absl::StatusOr<bool> has_body = source_.Next(*pending_.mutable_body());
        if (!has_body.ok()) return has_body.status();
        if (!*has_body) {
          is_at_end_ = true;
          break;
        }
        Decorate(pending_);
        has_pending_ = true;
      }
      const std::size_t message_bytes = pending_.ByteSizeLong() + kFrameOverheadBytes;
      if (!frame.messages().empty() && bytes + message_bytes > kFrameBytes) break;
      frame.add_messages()->Swap(&pending_);
      pending_.Clear();
      has_pending_ = false;
      bytes += message_bytes;
      if (frame.messages_size() == kFrameMessages) break;
    }
    if (frame.messages().empty()) return false;
    Target::SetTarget(frame, options_.target);
    frame.set_request_id(frame_count_ == 0 ? request_id_ : Cat(request_id_, ".", frame_count_));
    ++frame_count_;
    return true;
  }

  // True if the first frame holds the whole input.
  bool is_alone() const { return is_at_end_ && frame_count_ == 1; }

 private:
  void Decorate(v1::Message& message) {
    message.mutable_attributes()->insert(options_.attributes.begin(), options_.attributes.end());
    message.set_content_type(options_.content_type);
    if (!options_.dedup_id.empty()) {
      message.set_dedup_id(message_count_ == 0 ? options_.dedup_id : Cat(options_.dedup_id, ".", message_count_));
      ++message_count_;
    }
    if (options_.delay.has_value()) *message.mutable_delay() = ToProto(*options_.delay);
    if (options_.deliver_at.has_value()) *message.mutable_deliver_at() = ToProto(*options_.deliver_at);
  }

  const ProduceOptions& options_;
  BodySource& source_;
  const std::string request_id_;
  v1::Message pending_;
  bool has_pending_ = false;
  bool is_at_end_ = false;
  std::int64_t frame_count_ = 0;
  std::int64_t message_count_ = 0;
};

// Sends the frames of one command and prints their answers. Two threads: the caller's reads input and writes frames, a
// second one per stream reads answers.
template <typename Target>
class Producer {
 public:
  Producer(const ProduceOptions& options, CommandContext& context)
      : options_(options), context_(context), stub_(context.connection.channel()) {}

  ExitCode Run() {
    const std::unique_ptr<BodySource> source = OpenInput(options_.input, context_.stdin_fd);
    Framer<Target> framer(options_, *source);
    typename Target::Request frame;
    absl::StatusOr<bool> has_frame = framer.Next(frame);
    if (has_frame.ok() && !*has_frame)
      return context_.Fail(ExitCode::kFailed,
                           "the input holds no message. Give bodies as arguments, a file with --file, "
                           "or lines on standard input");
    grpc::Status status;
    if (has_frame.ok() && framer.is_alone()) {
      status = SendAlone(frame);
    } else if (has_frame.ok()) {
      has_frame = SendAll(framer, frame);
      status = CloseStream();
    }
    if (!status.ok()) {
      Failure failure = context_.connection.Explain(status, Cat(Target::kVerb, options_.target));
      if (!framer.is_alone()) failure.text += Cat(". ", Progress(status));
      return context_.Fail(failure.exit_code, failure.text);
    }
    if (!has_frame.ok()) {
      return context_.Fail(ExitCode::kFailed,
                           Cat(has_frame.status().message(), ". ", Counted(confirmed_count_, "message"), " before it ",
                               confirmed_count_ == 1 ? "is " : "are ", Target::kDone));
    }
    if (has_foreign_answer_) {
      return context_.Fail(ExitCode::kFailed,
                           Cat(Target::kVerb, options_.target, ": the request id ", options_.request_id,
                               " was used before, for another input. What was new in this one is not ", Target::kDone,
                               ". Choose another --request-id"));
    }
    if (!context_.out.is_json() && !context_.is_quiet && options_.input.bodies.empty()) {
      const std::string known = duplicate_count_ == 0 ? "" : Cat(", ", duplicate_count_, " known before");
      context_.out.Line(Cat(Counted(confirmed_count_ - duplicate_count_, "message"), " ", Target::kDone, known));
    }
    return ExitCode::kDone;
  }

 private:
  using Stream = grpc::ClientReaderWriter<typename Target::Request, typename Target::Response>;

  grpc::Status SendAlone(typename Target::Request& frame) {
    typename Target::Response answer;
    const grpc::Status status =
        context_.connection.Call([&](grpc::ClientContext* call) { return Target::Call(stub_, call, frame, answer); });
    if (status.ok()) Print(frame.messages_size(), answer);
    return status;
  }

  // Until the input ends or the stream fails for good (`failure_`).
  absl::StatusOr<bool> SendAll(Framer<Target>& framer, typename Target::Request& frame) {
    for (;;) {
      if (!WaitUntilUnanswered(kUnansweredFramesMax - 1)) return true;
      {
        const std::lock_guard lock(mu_);
        if (unanswered_.empty()) last_progress_ = Clock::now();
        unanswered_.push_back(frame);
      }
      // A write that fails shows in the stream's end, which is seen when its answers are waited for.
      if (stream_) stream_->Write(frame);
      const absl::StatusOr<bool> has_frame = framer.Next(frame);
      if (!has_frame.ok()) {
        WaitUntilUnanswered(0);
        return has_frame;
      }
      if (!*has_frame) {
        WaitUntilUnanswered(0);
        return true;
      }
    }
  }

  // Opens the stream when there is none or it broke, and waits. False after a failure for good.
  bool WaitUntilUnanswered(std::size_t count_max) {
    for (;;) {
      if (!stream_ && !OpenStream()) return false;
      {
        std::unique_lock lock(mu_);
        const auto is_over = [&] { return has_ended_ || unanswered_.size() <= count_max; };
        if (!changed_.wait_until(lock, last_progress_ + context_.connection.options().call_timeout, is_over)) {
          call_->TryCancel();
          failure_ = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "");
          return false;
        }
        const bool is_all_answered = count_max == 0 && unanswered_.empty();
        if (!has_ended_ || is_all_answered) return true;
        if (unanswered_.empty()) last_progress_ = Clock::now();
      }
      if (!MayOpenAgain(FinishStream())) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  }

  // Sets failure_ if the stream ended for good. A full queue is not waited for: that is the caller's decision.
  bool MayOpenAgain(const grpc::Status& status) {
    const std::string reason = GetErrorInfo(status).reason;
    const bool is_full = reason == "QUEUE_FULL" || reason == "STORE_FULL";
    const bool has_time_left = Clock::now() < last_progress_ + context_.connection.options().call_timeout;
    if ((status.ok() || IsTransient(status)) && !is_full && has_time_left) return true;
    failure_ = status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server ended the stream") : status;
    return false;
  }

  // On a new stream everything that is unanswered comes first, in order.
  bool OpenStream() {
    const ConnectionOptions& options = context_.connection.options();
    const bool is_first = std::exchange(has_opened_, true) == false;
    const Duration left = last_progress_ + options.call_timeout - Clock::now();
    if (!context_.connection.WaitUntilConnected(is_first ? options.connect_timeout : left)) {
      failure_ = grpc::Status(grpc::StatusCode::UNAVAILABLE, "");
      return false;
    }
    call_ = std::make_unique<grpc::ClientContext>();
    call_->set_wait_for_ready(false);
    stream_ = Target::Open(stub_, call_.get());
    std::deque<typename Target::Request> again;
    {
      const std::lock_guard lock(mu_);
      has_ended_ = false;
      again = unanswered_;
      resent_count_ = again.size();
    }
    reader_ = std::thread([this] { ReadAnswers(); });
    for (const typename Target::Request& frame : again) stream_->Write(frame);
    return true;
  }

  void ReadAnswers() {
    typename Target::Response answer;
    while (stream_->Read(&answer)) {
      const std::lock_guard lock(mu_);
      if (unanswered_.empty()) {  // An answer to nothing: the other side is no postkeeperd.
        call_->TryCancel();
        break;
      }
      Print(unanswered_.front().messages_size(), answer);
      context_.out.Flush();  // Who feeds us line by line may wait for the id before the next one.
      unanswered_.pop_front();
      if (resent_count_ > 0) --resent_count_;
      last_progress_ = Clock::now();
      changed_.notify_all();
    }
    const std::lock_guard lock(mu_);
    has_ended_ = true;
    changed_.notify_all();
  }

  grpc::Status FinishStream() {
    reader_.join();
    const grpc::Status status = stream_->Finish();
    stream_.reset();
    return status;
  }

  // The last word on the whole input.
  grpc::Status CloseStream() {
    if (!stream_) return failure_;
    if (failure_.ok()) stream_->WritesDone();
    const grpc::Status status = FinishStream();
    // Once everything is answered, it does not matter how the stream ends.
    return unanswered_.empty() ? grpc::Status::OK : failure_.ok() ? status : failure_;
  }

  void Print(int message_count, const typename Target::Response& answer) {
    // The service knows the id, and answered as it did then.
    has_foreign_answer_ = has_foreign_answer_ || answer.message_ids_size() != message_count;
    confirmed_count_ += message_count;
    duplicate_count_ += answer.duplicates_size();
    const std::set<int> duplicates(answer.duplicates().begin(), answer.duplicates().end());
    for (int i = 0; i < answer.message_ids_size(); ++i) {
      if (context_.out.is_json()) {
        JsonObject object;
        object.Add("message_id", answer.message_ids(i));
        if (duplicates.contains(i)) object.AddBool("duplicate", true);
        context_.out.Json(object);
      } else if (!options_.input.bodies.empty() && !context_.is_quiet) {
        context_.out.Line(ForTerminal(answer.message_ids(i), false));
      }
    }
  }

  // How far it got before it failed. The service writes no frame after one that it refused. But of frames
  // that an earlier stream carried too, that one may have written some.
  std::string Progress(const grpc::Status& status) const {
    const std::string reason = GetErrorInfo(status).reason;
    const bool is_definite = !reason.empty() && reason != "OUTCOME_UNKNOWN" && resent_count_ == 0;
    std::int64_t unknown_count = 0;
    for (const typename Target::Request& frame : unanswered_) unknown_count += frame.messages_size();
    return is_definite || unknown_count == 0
               ? Cat("Of the input the first ", confirmed_count_, " messages are ", Target::kDone, ", no more")
               : Cat("Of the input the first ", confirmed_count_, " messages are ", Target::kDone, "; of the next ",
                     unknown_count, " it is not known");
  }

  const ProduceOptions& options_;
  CommandContext& context_;
  v1::MessageService::Stub stub_;

  // Touched by the caller's thread only, except for reading and writing the stream, which gRPC allows at once.
  std::unique_ptr<grpc::ClientContext> call_;
  std::unique_ptr<Stream> stream_;
  std::thread reader_;
  bool has_opened_ = false;
  grpc::Status failure_;

  std::mutex mu_;
  std::condition_variable changed_;
  // Guarded by mu_ while a reader runs.
  std::deque<typename Target::Request> unanswered_;
  std::size_t resent_count_ = 0;  // Of these, the first so many went out on a stream before.
  Clock::time_point last_progress_ = Clock::now();
  bool has_ended_ = false;
  std::int64_t confirmed_count_ = 0;
  std::int64_t duplicate_count_ = 0;  // among them
  bool has_foreign_answer_ = false;
};

}  // namespace

ExitCode Enqueue(const ProduceOptions& options, CommandContext& context) {
  return Producer<ToQueue>(options, context).Run();
}

ExitCode Publish(const ProduceOptions& options, CommandContext& context) {
  return Producer<ToTopic>(options, context).Run();
}

}  // namespace postkeeper::cli
