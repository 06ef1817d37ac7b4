#include "service/append_stream.h"

#include <asio/post.hpp>
#include <deque>
#include <utility>
#include <vector>

#include "postkeeper/wire/v1/wire.pb.h"
#include "service/log_handle.h"
#include "service/ordered_answers.h"
#include "service/owner_route.h"
#include "service/stream_call.h"
#include "service/wire_codec.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

// The API's bound. The bytes bound what one stream takes of the appender's queue, and are enough to keep it busy.
constexpr int kUnansweredFramesMax = 64;
constexpr std::int64_t kUnansweredBytesMax = 4 << 20;
// As of a unary call.
constexpr int kOpeningsMax = 5;

// A later frame as the first one of a stream. What comes last counts, in protobuf.
grpc::ByteBuffer WithLogName(const grpc::ByteBuffer& frame, const Name& log_name) {
  wire::v1::AppendRequest name;
  name.set_log(log_name.Full());
  std::vector<grpc::Slice> slices;
  if (!frame.Dump(&slices).ok()) return frame;  // it was read before
  slices.push_back(EncodeMessage(name));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// How it works. Frames are read and checked on gRPC's thread and wait in `accepted_`; Submit gives them to the engine
// on its strand, in order. Answers are kept in the order of the frames.
//
// The frames of a stream without ids are appended here, whoever owns the log, and wait when there is no room that does
// not have to be asked for. From the first frame with an id on, a request_id or a dedup_id, all go through the owner:
// that frame is held back, with nothing read behind it, until all before it are answered, and then it is the first of a
// relayed stream. So does all of a stream that begins with an id, or on a log too small for this (AppendRoom).
//
// «The first failure ends the stream, and no later frame is written» holds for these reasons:
//  - What is wrong with a frame itself is found before it is accepted; then nothing more is read.
//  - A frame that the engine refuses (the queue is full, too many calls) is refused before Append returns, since frames
//    are given only while the engine is ready for them; then no further one is given. One with a dedup_id whose fate is
//    open is given when that is known.
//  - What fails later fails for a reason of the whole log (deleted, ZooKeeper gone, another owner), and the appender
//    carries out batches in the order given: whatever is behind a batch that failed for good fails for the same reason.
//    The owner is only checked for frames with an id; so frames with and without one are never on their way together.
//    Nor are those with ids under two epochs of the owner: the first could be refused for its fence and the second not.
//    Nor are those that are safe to repeat and those that are not, since the stream's status says one thing of all.
//  - Behind an OUTCOME_UNKNOWN a later frame can be written only if the one in question was.
class AppendStream final : public BidiCall {
 public:
  AppendStream(Desk& desk, grpc::CallbackServerContext& context, Name::Kind log_kind)
      : BidiCall(desk, kMessageServiceName, log_kind == Name::Kind::kQueue ? "EnqueueStream" : "PublishStream",
                 context),
        log_kind_(log_kind) {}

  void Start() {
    Hold();
    if (Enter()) ReadMore();
  }

  // Every frame that was taken is answered; then the stream ends with REPLICA_DRAINING, which says that the next one
  // was not written. A peer that works for the log answers them, too, and ends with OK once it is half-closed.
  void AskToLeave(std::string_view, Duration) override {
    {
      absl::MutexLock lock(&mutex_);
      is_leaving_ = true;
    }
    if (const std::shared_ptr<StreamRelay> relay = FindRelay()) return relay->HalfClose();
    Pump();
  }

  void EndNow(absl::Status why) override {
    if (MayHaveUnansweredWrites()) {
      why = MakeError(Reason::kOutcomeUnknown, "the stream was ended before this was answered");
    }
    BidiCall::EndNow(std::move(why));
  }

 private:
  using Ticket = OrderedAnswers<absl::StatusOr<grpc::Slice>>::Ticket;

  struct Accepted {
    Ticket ticket = 0;
    CheckedAppend append;
  };
  // Frames on their way at one time are of one kind.
  struct Kind {
    bool has_id = false;
    bool is_safe_to_repeat = false;
    std::int64_t epoch = 0;  // of the owner that is checked for, if it has an id

    static Kind Of(const CheckedAppend& append, std::int64_t epoch) {
      return {append.has_id(), append.is_safe_to_repeat(), append.has_id() ? epoch : 0};
    }
    friend bool operator==(const Kind&, const Kind&) = default;
  };

  std::shared_ptr<AppendStream> Self() { return std::static_pointer_cast<AppendStream>(shared_from_this()); }

  bool MayHaveUnansweredWrites() {
    const bool is_relayed = FindRelay() != nullptr;
    absl::MutexLock lock(&mutex_);
    if (submitted_ > 0) is_safe_to_repeat_ = submitted_kind_.is_safe_to_repeat;
    return is_relayed || unanswered_frames_ > static_cast<int>(accepted_.size());
  }

  void OnRelayStarted() override {
    bool is_leaving = false;
    {
      absl::MutexLock lock(&mutex_);
      is_leaving = is_leaving_;
    }
    if (is_leaving) FindRelay()->HalfClose();
    BidiCall::OnRelayStarted();
  }

  absl::Status EndOfRelay() override {
    absl::MutexLock lock(&mutex_);
    return is_leaving_ && !is_input_over() ? ReplicaDraining() : absl::OkStatus();
  }

  // ---- Frames in, on gRPC's thread

  bool MayRead() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool is_opening = log_name_.has_value() && !log_.has_value();
    return !is_opening && !needs_owner_ && !has_bad_frame_ && !has_failed_ && !is_leaving_ &&
           unanswered_frames_ < kUnansweredFramesMax && unanswered_bytes_ < kUnansweredBytesMax;
  }

  void OnFrame(const grpc::ByteBuffer& bytes) override {
    absl::StatusOr<CheckedAppend> append = Check(bytes);
    const bool is_first = append.ok() && !log_name_;
    if (is_first) frame_for_owner_ = bytes;
    std::optional<LogHandle> log;
    {
      absl::MutexLock lock(&mutex_);
      const Ticket ticket = answers_.Ask();
      unanswered_frames_ += 1;
      if (append.ok()) {
        unanswered_bytes_ += append->message_bytes;
        sizes_.push_back(append->message_bytes);
        if (is_first) log_name_ = append->log;
        if (log_ && append->has_id() && !log_->is_serving()) {
          needs_owner_ = true;
          frame_for_owner_ = WithLogName(bytes, *log_name_);
        }
        accepted_.push_back({ticket, *std::move(append)});
      } else {
        sizes_.push_back(0);
        answers_.Give(ticket, append.status());
        has_bad_frame_ = true;
      }
      log = log_;
    }
    if (!append.ok()) {
      Pump();
    } else if (is_first) {
      Open(1);
    } else if (log) {
      asio::post(log->strand(), [self = Self()] { self->Submit(); });
    }
  }

  absl::StatusOr<CheckedAppend> Check(const grpc::ByteBuffer& bytes) {
    const bool is_queue = log_kind_ == Name::Kind::kQueue;
    wire::v1::AppendRequest request;
    if (absl::Status status = DecodeRequest(bytes, is_queue ? "EnqueueStreamRequest" : "PublishStreamRequest", request);
        !status.ok()) {
      return status;
    }
    return CheckAppend(std::move(request), {.log_kind = log_kind_,
                                            .stream_log = log_name_ ? &*log_name_ : nullptr,
                                            .now = desk_.environment.WallNow(),
                                            .limits = desk_.limits});
  }

  void OnInputEnd() override { Pump(); }

  void Open(int openings) {
    if (std::optional<LogHandle> log = LogHandle::Find(*broker_, *log_name_)) {
      return RelayOrOpen(*std::move(log), openings);
    }
    auto open = [](std::shared_ptr<AppendStream> self, int opening) -> Task<void> {
      absl::StatusOr<LogHandle> log = co_await LogHandle::Open(*self->broker_, *self->log_name_);
      if (log.ok()) {
        self->RelayOrOpen(*std::move(log), opening);
      } else {
        self->FailAccepted(log.status());
      }
    };
    Spawn(desk_.environment.executor(), open(Self(), openings));
  }

  void RelayOrOpen(LogHandle log, int openings) {
    auto relay_or_open = [](std::shared_ptr<AppendStream> self, LogHandle opened, int opening) -> Task<void> {
      const std::optional<AppendSize> first = self->NextSize();
      if (!opened.is_serving() && first) {
        const AppendRoute route = co_await RouteAppend(opened, *first, self->is_relayed_);
        if (route == AppendRoute::kGone && opening < kOpeningsMax) co_return self->Open(opening + 1);
        const bool is_local = route == AppendRoute::kHere && opened.room().SuitsStreams();
        if (!is_local && co_await self->RelayFrame(opened)) co_return;
      }
      self->OnOpened(std::move(opened));
    };
    const asio::any_io_executor strand = log.strand();
    Spawn(strand, relay_or_open(Self(), std::move(log), openings));
  }

  // True: the stream goes on at the owner, from this frame on, or has ended.
  Task<bool> RelayFrame(LogHandle log) {
    const std::shared_ptr<AppendStream> self = Self();
    if (log.is_serving()) co_return false;
    is_safe_to_repeat_ = false;
    grpc::ByteBuffer frame = std::exchange(frame_for_owner_, {});
    const bool is_elsewhere = co_await RelayIfElsewhere(std::move(log), std::move(frame));
    if (!is_elsewhere) is_safe_to_repeat_ = true;
    co_return is_elsewhere;
  }

  void OnOpened(LogHandle log) {
    const asio::any_io_executor strand = log.strand();
    {
      absl::MutexLock lock(&mutex_);
      log_ = std::move(log);
      frame_for_owner_ = {};
    }
    asio::post(strand, [self = Self()] {
      self->Submit();
      self->ReadMore();
    });
  }

  // ---- To the engine and back, on its strand

  // The next frame that may be given to the engine now. `open_id`: an id of it whose fate is to be waited for first.
  std::optional<Accepted> NextToSubmit(std::optional<IdHash>& open_id) {
    absl::MutexLock lock(&mutex_);
    if (has_failed_ || end_ || accepted_.empty() || is_waiting_) return std::nullopt;
    if (needs_owner_ && accepted_.size() == 1) return std::nullopt;
    const Kind kind = Kind::Of(accepted_.front().append, log_->epoch());
    if (submitted_ > 0 && kind != submitted_kind_) return std::nullopt;
    open_id = log_->ids().FindOpen(accepted_.front().append, /*looks_at_request_id=*/true);
    if (open_id) return std::nullopt;
    Accepted next = std::move(accepted_.front());
    accepted_.pop_front();
    submitted_kind_ = kind;
    ++submitted_;
    return next;
  }

  std::optional<AppendSize> NextSize() {
    absl::MutexLock lock(&mutex_);
    if (accepted_.empty()) return std::nullopt;
    return SizeOf(accepted_.front().append);
  }

  // The engine would take the next frame now.
  bool IsReadyForNext() {
    const std::optional<AppendSize> next = NextSize();
    return !next || log_->IsReadyFor(next->has_id) || log_->HasRoomFor(*next);
  }

  // The frame that needs the owner is the next, and all before it were answered.
  bool MustRelayNext() {
    absl::MutexLock lock(&mutex_);
    if (!needs_owner_ || is_turning_ || has_failed_ || end_ || accepted_.size() != 1) return false;
    is_turning_ = unanswered_frames_ == 1;
    return is_turning_;
  }

  void RelayFromHere() {
    auto relay = [](std::shared_ptr<AppendStream> self) -> Task<void> {
      if (co_await self->RelayFrame(*self->log_)) co_return;
      {
        absl::MutexLock lock(&self->mutex_);
        self->needs_owner_ = self->is_turning_ = false;
      }
      self->Submit();
      self->ReadMore();
    };
    Spawn(log_->strand(), relay(Self()));
  }

  void Submit() {
    if (MustRelayNext()) return RelayFromHere();
    if (IsOwnersTurn()) return;
    if (!IsReadyForNext()) return WaitUntilReady();
    std::optional<IdHash> open_id;
    while (std::optional<Accepted> next = NextToSubmit(open_id)) {
      log_->Append(std::move(next->append), [self = Self(), ticket = next->ticket](absl::StatusOr<Appended> outcome) {
        self->OnAppended(ticket, outcome);
      });
      if (IsOwnersTurn()) return;
      if (!IsReadyForNext()) return WaitUntilReady();
    }
    if (open_id) WaitForId(*open_id);
  }

  // Frames behind it wait, too: the order holds, and nothing is written behind a frame that fails.
  void WaitForId(const IdHash& id) {
    {
      absl::MutexLock lock(&mutex_);
      is_waiting_ = true;
    }
    log_->ids().WaitFor(id, [self = Self()](const absl::StatusOr<Appended>& fate) {
      const absl::Status unknown = HasReason(fate.status(), Reason::kOutcomeUnknown) ? fate.status() : absl::OkStatus();
      asio::post(self->log_->strand(), [self, unknown] {
        {
          absl::MutexLock lock(&self->mutex_);
          self->is_waiting_ = false;
          if (!unknown.ok() && !self->accepted_.empty() && !self->has_failed_) {
            self->is_safe_to_repeat_ = self->accepted_.front().append.is_safe_to_repeat();
          }
        }
        if (unknown.ok()) {
          self->Submit();
        } else {
          self->FailAccepted(unknown);
        }
      });
    });
  }

  // The next frame is the one that needs the owner: it waits for OnFrameSent.
  bool IsOwnersTurn() {
    absl::MutexLock lock(&mutex_);
    return needs_owner_ && accepted_.size() <= 1;
  }

  // The engine keeps the order of calls that find it ready, not of those that wait for it.
  void WaitUntilReady() {
    {
      absl::MutexLock lock(&mutex_);
      if (is_waiting_ || accepted_.empty()) return;
      is_waiting_ = true;
    }
    auto wait = [](std::shared_ptr<AppendStream> self) -> Task<void> {
      const AppendSize next = self->NextSize().value_or(AppendSize());
      const bool needs_owner = next.has_id || self->is_relayed_ || self->log_->is_serving();
      absl::Status status;
      if (!needs_owner) status = co_await self->log_->room().LookIfNeeded(next);
      // A log too small for this is not waited for; the client opens the stream again, at its owner.
      if (needs_owner || (status.ok() && !self->log_->room().SuitsStreams())) {
        status = co_await self->log_->WaitUntilReadyFor(next.has_id, kOwnerPatience);
      } else {
        status = co_await self->log_->WaitForRoom(next, kOwnerPatience);
      }
      {
        absl::MutexLock lock(&self->mutex_);
        self->is_waiting_ = false;
      }
      if (status.ok()) {
        self->Submit();
      } else {
        const bool is_gone = absl::IsNotFound(status) || IsLogGone(status);
        if (is_gone) status = co_await self->SayWhatIsGone();
        self->FailAccepted(status);
      }
    };
    Spawn(log_->strand(), wait(Self()));
  }

  // The log was deleted. The name may be of another one by now, for another stream.
  Task<absl::Status> SayWhatIsGone() {
    const std::shared_ptr<AppendStream> self = Self();
    log_->SetGone();
    const absl::StatusOr<LogHandle> log = co_await LogHandle::Open(*broker_, *log_name_);
    if (!log.ok()) co_return log.status();
    co_return MakeError(Reason::kNoOwner, Cat(log->full_name(), " was deleted and made again. Open the stream again"),
                        {.resource = log->full_name()});
  }

  // Of the frames that were not given to the engine, the first fails with this.
  void FailAccepted(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      has_failed_ = true;
      if (!accepted_.empty()) answers_.Give(accepted_.front().ticket, status);
      accepted_.clear();
    }
    Pump();
  }

  void OnAppended(Ticket ticket, const absl::StatusOr<Appended>& outcome) {
    absl::StatusOr<grpc::Slice> answer;
    if (outcome.ok()) {
      answer = EncodeAppended(*outcome);
    } else {
      answer = outcome.status();
    }
    const bool is_gone = IsLogGone(outcome.status());
    bool is_more_accepted = false;
    {
      absl::MutexLock lock(&mutex_);
      if (!outcome.ok() && !has_failed_) is_safe_to_repeat_ = submitted_kind_.is_safe_to_repeat;
      if (!outcome.ok()) has_failed_ = true;
      --submitted_;
      if (!is_gone) answers_.Give(ticket, std::move(answer));
      is_more_accepted = !has_failed_ && !accepted_.empty() && submitted_ == 0;
    }
    if (is_gone) {
      auto say = [](std::shared_ptr<AppendStream> self, Ticket refused) -> Task<void> {
        absl::Status status = co_await self->SayWhatIsGone();
        {
          absl::MutexLock lock(&self->mutex_);
          self->answers_.Give(refused, std::move(status));
        }
        self->Pump();
      };
      Spawn(log_->strand(), say(Self(), ticket));
    }
    Pump();
    if (is_more_accepted) asio::post(log_->strand(), [self = Self()] { self->Submit(); });
  }

  // ---- Answers out

  bool TakeFrame(grpc::Slice& frame) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (end_) return false;
    if (std::optional<absl::StatusOr<grpc::Slice>> answer = answers_.Next()) {
      if (!answer->ok()) {
        end_ = answer->status();
        return false;
      }
      frame = std::move(**answer);
      return true;
    }
    const bool has_answered_all = answers_.empty();
    if (has_answered_all && is_leaving_) {
      end_ = ReplicaDraining();
    } else if (has_answered_all && is_input_over()) {
      end_ = absl::OkStatus();
    }
    return false;
  }

  void OnFrameSent() override {
    bool needs_owner = false;
    {
      absl::MutexLock lock(&mutex_);
      --unanswered_frames_;
      unanswered_bytes_ -= sizes_.front();
      sizes_.pop_front();
      needs_owner = needs_owner_;
    }
    if (needs_owner) asio::post(log_->strand(), [self = Self()] { self->Submit(); });
    ReadMore();
  }

  const Name::Kind log_kind_;
  // The first frame until the log is open, then one that needs the owner: in the hands of one thread at a time.
  grpc::ByteBuffer frame_for_owner_;
  // Set by the first frame, before log_; then constant.
  std::optional<Name> log_name_;
  // Set once, under the mutex, before the strand is used; then constant.
  std::optional<LogHandle> log_;

  std::deque<Accepted> accepted_ ABSL_GUARDED_BY(mutex_);  // not yet given to the engine
  int submitted_ ABSL_GUARDED_BY(mutex_) = 0;              // given to it, and not answered
  Kind submitted_kind_ ABSL_GUARDED_BY(mutex_);
  bool is_waiting_ ABSL_GUARDED_BY(mutex_) = false;     // for an owner, for room, or for the fate of an id
  bool needs_owner_ ABSL_GUARDED_BY(mutex_) = false;    // the last frame accepted has an id; nothing is read behind it
  bool is_turning_ ABSL_GUARDED_BY(mutex_) = false;     // to the owner
  bool has_bad_frame_ ABSL_GUARDED_BY(mutex_) = false;  // nothing is read behind it
  bool has_failed_ ABSL_GUARDED_BY(mutex_) = false;     // nothing more is given to the engine
  bool is_leaving_ ABSL_GUARDED_BY(mutex_) = false;
  OrderedAnswers<absl::StatusOr<grpc::Slice>> answers_ ABSL_GUARDED_BY(mutex_);
  int unanswered_frames_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t unanswered_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::int64_t> sizes_ ABSL_GUARDED_BY(mutex_);  // of the unanswered frames
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* MakeAppendStream(Desk& desk,
                                                                              grpc::CallbackServerContext& context,
                                                                              Name::Kind log_kind) {
  const auto stream = std::make_shared<AppendStream>(desk, context, log_kind);
  stream->Start();
  return stream.get();
}

}  // namespace postkeeper
