#include "service/peers.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "service/grpc_status.h"
#include "zkstore/errors.h"
#include "zkstore/signal.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr char kRelayedHeader[] = "postkeeper-relayed";
constexpr Duration kConnectPatience = std::chrono::seconds(1);
constexpr Duration kConnectPoll = std::chrono::milliseconds(5);
// How soon a broken connection to a replica is tried again.
constexpr int kReconnectMinMs = 100;
constexpr int kReconnectMaxMs = 1000;

void Prepare(const RelayedCall& call, grpc::ClientContext& context) {
  context.AddMetadata(kRelayedHeader, call.replica);
  context.set_deadline(call.deadline);
}

RelayedAnswer AnswerOf(const grpc::Status& status, const grpc::ClientContext& context) {
  RelayedAnswer answer{status, {}, {}};
  const auto& trailers = context.GetServerTrailingMetadata();
  if (const auto found = trailers.find(kRetryPushbackTrailer); found != trailers.end()) {
    answer.pushback.assign(found->second.data(), found->second.size());
  }
  return answer;
}

std::string ReasonIn(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return "";
  google::rpc::ErrorInfo info;
  for (const google::protobuf::Any& detail : details.details()) {
    if (detail.UnpackTo(&info) && info.domain() == kErrorDomain) return info.reason();
  }
  return "";
}

}  // namespace

std::shared_ptr<grpc::Channel> Peers::ChannelTo(const std::string& address) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<grpc::Channel>& channel = channels_[address];
  if (channel == nullptr) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMinMs);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
    // gRPC connects again only after it has resolved the name again, by default at most every 30 s.
    arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, kReconnectMinMs);
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // the caller decides what may be repeated
    arguments.SetMaxReceiveMessageSize(-1);        // the peer's own limits hold
    channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }
  std::shared_ptr<grpc::Channel> found = channel;
  if (channels_.size() > kChannelsMax) {
    channels_.erase(channels_.begin()->first == address ? std::next(channels_.begin()) : channels_.begin());
  }
  return found;
}

bool Peers::IsConnectedTo(const std::string& address) {
  return ChannelTo(address)->GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY;
}

absl::Status NotOwner(std::string_view owner) {
  return MakeError(Reason::kNoOwner, Cat("the replica at ", owner, " works for it, as far as this one knows"));
}

absl::Status RelayBroken(std::string_view why) {
  return MakeError(Reason::kOutcomeUnknown, Cat("the connection to the replica that works for it broke: ", why));
}

Task<bool> WaitUntilConnected(Environment& environment, std::shared_ptr<grpc::Channel> channel) {
  const Instant deadline = environment.Now() + kConnectPatience;
  while (channel->GetState(/*try_to_connect=*/true) != GRPC_CHANNEL_READY) {
    if (environment.Now() >= deadline) co_return false;
    co_await SleepFor(environment, kConnectPoll);
  }
  co_return true;
}

bool IsRelayed(const grpc::CallbackServerContext& context) {
  return context.client_metadata().find(kRelayedHeader) != context.client_metadata().end();
}

bool SaysNotOwner(const grpc::Status& status) { return ReasonIn(status) == ReasonName(Reason::kNoOwner); }

bool IsUnexplained(const grpc::Status& status) {
  const bool is_ours_to_say = status.ok() || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
                              status.error_code() == grpc::StatusCode::CANCELLED;
  return !is_ours_to_say && ReasonIn(status).empty();
}

// ---- Unary calls

std::shared_ptr<UnaryRelay> UnaryRelay::Start(const std::shared_ptr<grpc::Channel>& channel, const RelayedCall& call,
                                              const grpc::ByteBuffer& request, Done done) {
  std::shared_ptr<UnaryRelay> relay(new UnaryRelay);
  relay->stub_ = std::make_unique<grpc::GenericStub>(channel);
  relay->request_ = request;
  Prepare(call, relay->context_);
  relay->stub_->UnaryCall(&relay->context_, call.path, grpc::StubOptions(), &relay->request_, &relay->response_,
                          [relay, done = std::move(done)](const grpc::Status& status) {
                            RelayedAnswer answer = AnswerOf(status, relay->context_);
                            answer.bytes.Swap(&relay->response_);
                            done(std::move(answer));
                          });
  return relay;
}

// ---- Streams

std::shared_ptr<StreamRelay> StreamRelay::Start(const std::shared_ptr<grpc::Channel>& channel, const RelayedCall& call,
                                                const grpc::ByteBuffer& first_frame, Listener listener) {
  std::shared_ptr<StreamRelay> relay(new StreamRelay);
  relay->self_ = relay;
  relay->listener_ = std::move(listener);
  relay->stub_ = std::make_unique<grpc::GenericStub>(channel);
  Prepare(call, relay->context_);
  relay->stub_->PrepareBidiStreamingCall(&relay->context_, call.path, grpc::StubOptions(), relay.get());
  relay->AddHold();
  relay->outgoing_ = first_frame;
  {
    absl::MutexLock lock(&relay->mutex_);
    relay->is_sending_ = true;
  }
  relay->StartWrite(&relay->outgoing_);
  relay->StartRead(&relay->incoming_);
  relay->StartCall();
  return relay;
}

bool StreamRelay::BeginOperation() {
  absl::MutexLock lock(&mutex_);
  if (is_over_) return false;
  ++operations_starting_;
  return true;
}

void StreamRelay::EndOperation() {
  {
    absl::MutexLock lock(&mutex_);
    --operations_starting_;
    if (!is_over_ || operations_starting_ > 0 || is_released_) return;
    is_released_ = true;
  }
  RemoveHold();
}

void StreamRelay::Send(const grpc::ByteBuffer& frame) {
  const std::shared_ptr<StreamRelay> keeps_alive = shared_from_this();
  if (!BeginOperation()) return;
  bool is_closed = false;
  {
    absl::MutexLock lock(&mutex_);
    is_closed = is_half_closing_;
    if (!is_closed) is_sending_ = true;
  }
  if (!is_closed) {
    outgoing_ = frame;
    StartWrite(&outgoing_);
  }
  EndOperation();
}

void StreamRelay::HalfClose() {
  const std::shared_ptr<StreamRelay> keeps_alive = shared_from_this();
  if (!BeginOperation()) return;
  bool is_now = false;
  {
    absl::MutexLock lock(&mutex_);
    is_half_closing_ = true;
    is_now = !is_sending_;
    if (is_now) is_sending_ = true;  // nothing is sent behind it
  }
  if (is_now) StartWritesDone();
  EndOperation();
}

void StreamRelay::ReadMore() {
  const std::shared_ptr<StreamRelay> keeps_alive = shared_from_this();
  if (!BeginOperation()) return;
  bool is_now = false;
  {
    absl::MutexLock lock(&mutex_);
    is_now = !std::exchange(is_reading_, true);
  }
  if (is_now) StartRead(&incoming_);
  EndOperation();
}

// The end is learned by reading: without a read on its way, nobody would ever hear of it.
void StreamRelay::Cancel() {
  {
    absl::MutexLock lock(&mutex_);
    is_cancelled_ = true;
  }
  context_.TryCancel();
  ReadMore();
}

void StreamRelay::OnWriteDone(bool ok) {
  if (!ok) return;  // the stream is ending; OnReadDone and OnDone follow
  bool is_half_closing = false;
  {
    absl::MutexLock lock(&mutex_);
    is_sending_ = false;
    is_half_closing = is_half_closing_;
  }
  if (is_half_closing) {
    HalfClose();
  } else {
    listener_.on_sent();
  }
}

void StreamRelay::OnReadDone(bool ok) {
  bool is_cancelled = false;
  {
    absl::MutexLock lock(&mutex_);
    is_reading_ = false;
    is_cancelled = is_cancelled_;
    if (!ok) {
      is_over_ = true;
      ++operations_starting_;
    }
  }
  if (!ok) return EndOperation();
  if (is_cancelled) return ReadMore();
  grpc::ByteBuffer frame;
  frame.Swap(&incoming_);
  listener_.on_frame(std::move(frame));
}

void StreamRelay::OnDone(const grpc::Status& status) {
  const std::shared_ptr<StreamRelay> last_hold = std::move(self_);
  listener_.on_end(AnswerOf(status, context_));
  listener_ = Listener();
}

}  // namespace postkeeper
