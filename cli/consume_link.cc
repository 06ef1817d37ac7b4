#include "cli/consume_link.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "cli/failure.h"
#include "cli/protos.h"
#include "cli/text.h"

namespace postkeeper::cli {
namespace {

// Bounds of the API.
constexpr std::int64_t kCreditBytesMax = 64 << 20;
constexpr std::int64_t kMessageBytesMax = 512 << 10;
constexpr int kTokensPerGroupMax = 1000;

// Whatever a server says, extensions do not become a busy loop.
constexpr auto kLeaseMin = std::chrono::milliseconds(100);

constexpr auto kTick = std::chrono::milliseconds(50);
// How long the server may take to end a stream that we have half-closed; nothing depends on it any more.
constexpr auto kFarewell = std::chrono::seconds(3);

bool Settles(const v1::ConsumeRequest& frame) { return frame.ack_tokens_size() > 0 || frame.nacks_size() > 0; }

}  // namespace

ConsumeLink::ConsumeLink(Connection& connection, ConsumeLinkOptions options, ConsumeListener& listener)
    : connection_(connection), options_(std::move(options)), listener_(listener), stub_(connection.channel()) {}

Failure ConsumeLink::Run() {
  std::thread writer([this] { WriteForever(); });
  Failure failure;
  Retry retry;
  while (WaitForServer(failure) && OpenStream()) {
    {
      const std::shared_ptr<Call> call = call_;
      Watchdog watchdog(3 * options_.heartbeat_interval, [call] { call->context.TryCancel(); });
      ReadStream(watchdog, retry);
    }
    const bool was_drained_by_server = server_draining_since_.has_value();
    const grpc::Status status = FinishStream();
    {
      const std::lock_guard lock(mu_);
      if (is_draining_ && is_settled()) break;
    }
    if (!status.ok() && !IsTransient(status)) {
      failure = connection_.Explain(status, Cat("consume ", options_.source));
      break;
    }
    listener_.OnInterruption();
    if (retry.is_first() && !was_drained_by_server) {
      const std::string why = connection_.Explain(status, Cat("consume ", options_.source)).text;
      listener_.OnNote(Cat("the stream broke; trying again", why.empty() ? "" : ". ", why));
    }
    retry.Wait([this] {
      const std::lock_guard lock(mu_);
      return is_draining_ && is_settled();
    });
  }
  {
    const std::lock_guard lock(mu_);
    is_over_ = true;
  }
  changed_.notify_all();
  writer.join();
  return failure;
}

// False if there is nothing to wait for any more; `failure` says so if that is one.
bool ConsumeLink::WaitForServer(Failure& failure) {
  for (;;) {
    {
      const std::lock_guard lock(mu_);
      const Duration waited = Clock::now() - disconnected_at_;
      if (is_draining_ && is_settled()) return false;
      if (!has_been_open_ && waited >= connection_.options().connect_timeout) {
        failure = connection_.Unreachable();
        return false;
      }
      if (is_draining_ && held_.empty() && waited >= options_.settling_patience) {
        failure = connection_.Unreachable();
        failure.text = Cat(names_.size(), " messages were worked on but could not be settled, and will come ",
                           "again: ", failure.text);
        return false;
      }
    }
    if (connection_.WaitUntilConnected(std::chrono::milliseconds(100))) return true;
  }
}

bool ConsumeLink::OpenStream() {
  auto call = std::make_shared<Call>();
  call->context.set_wait_for_ready(false);  // The waiting is ours, so that it can be ended.
  call->stream = stub_.Consume(&call->context);
  v1::ConsumeRequest request;
  v1::Open& open = *request.mutable_open();
  open.set_source(options_.source);
  if (options_.lease_duration.has_value()) *open.mutable_lease_duration() = ToProto(*options_.lease_duration);
  *open.mutable_heartbeat_interval() = ToProto(options_.heartbeat_interval);
  open.set_consumer("postkeeper consume");
  const std::lock_guard lock(mu_);
  v1::Credit& credit = *open.mutable_credit();
  credit.set_messages(is_draining_ ? 0 : options_.credit);
  credit.set_bytes(std::min(kCreditBytesMax, options_.credit * kMessageBytesMax));
  request.set_drain(is_draining_);

  // Extensions and the drain of the stream before have lost their meaning; settlements have not.
  std::deque<v1::ConsumeRequest> again;
  for (auto& [sequence, frame] : unanswered_) again.push_back(std::move(frame));
  for (v1::ConsumeRequest& frame : outbox_) {
    if (Settles(frame)) again.push_back(std::move(frame));
  }
  again.push_front(std::move(request));
  outbox_ = std::move(again);
  unanswered_.clear();
  sequence_ = 0;
  extended_at_ = Clock::time_point();  // What is held from before is extended at once.
  is_half_closed_ = false;
  server_draining_since_.reset();
  has_been_open_ = true;
  call_ = std::move(call);
  changed_.notify_all();
  return true;
}

void ConsumeLink::ReadStream(Watchdog& watchdog, Retry& retry) {
  v1::ConsumeResponse response;
  while (call_->stream->Read(&response)) {
    watchdog.Feed();
    // A stream that is opened only to end is no progress.
    if (response.has_deliveries() || response.has_settled() || response.has_heartbeat()) retry.Reset();
    Handle(response);
  }
}

grpc::Status ConsumeLink::FinishStream() {
  std::shared_ptr<Call> call;
  {
    std::unique_lock lock(mu_);
    call = std::exchange(call_, nullptr);
    disconnected_at_ = Clock::now();
    changed_.wait(lock, [this] { return !is_writing_; });
  }
  return call->stream->Finish();
}

void ConsumeLink::Handle(v1::ConsumeResponse& response) {
  switch (response.frame_case()) {
    case v1::ConsumeResponse::kOpened: {
      const std::lock_guard lock(mu_);
      SetLease(response.opened().lease_duration());
      break;
    }
    case v1::ConsumeResponse::kDeliveries:
      HandleDeliveries(*response.mutable_deliveries());
      break;
    case v1::ConsumeResponse::kSettled:
      HandleSettled(response.settled());
      break;
    case v1::ConsumeResponse::kDraining: {
      {
        const std::lock_guard lock(mu_);
        server_draining_since_ = Clock::now();
      }
      listener_.OnInterruption();
      break;
    }
    default:
      break;
  }
}

void ConsumeLink::SetLease(const google::protobuf::Duration& duration) {
  lease_duration_ = std::max<Duration>(FromProto(duration), kLeaseMin);
}

void ConsumeLink::HandleDeliveries(v1::Deliveries& frame) {
  std::vector<v1::Delivery> deliveries;
  {
    const std::lock_guard lock(mu_);
    // Sent before the server saw our half-close, which releases them.
    if (is_half_closed_) return;
    if (frame.has_lease_duration()) SetLease(frame.lease_duration());
    for (v1::Delivery& delivery : *frame.mutable_deliveries()) {
      held_.insert(delivery.lease_token());
      names_[delivery.lease_token()] = delivery.message_id();
      deliveries.push_back(std::move(delivery));
    }
  }
  listener_.OnDeliveries(std::move(deliveries));
}

void ConsumeLink::HandleSettled(const v1::Settled& settled) {
  std::vector<SettledMessage> results;
  {
    const std::lock_guard lock(mu_);
    for (const v1::SettleFailure& failure : settled.failures()) {
      const bool is_taken = failure.error() != v1::SETTLE_ERROR_LEASE_LIMIT;
      if (is_taken && held_.contains(failure.lease_token())) lost_.insert(failure.lease_token());
    }
    const auto found = unanswered_.find(settled.sequence());
    if (found == unanswered_.end()) return;
    results = Results(found->second, settled);
    unanswered_.erase(found);
  }
  changed_.notify_all();
  for (const SettledMessage& result : results) listener_.OnSettled(result);
}

std::vector<SettledMessage> ConsumeLink::Results(const v1::ConsumeRequest& frame, const v1::Settled& settled) {
  std::map<std::string_view, const v1::SettleFailure*> failures;
  for (const v1::SettleFailure& failure : settled.failures()) failures[failure.lease_token()] = &failure;
  std::vector<SettledMessage> results;
  const auto add = [&](const std::string& token, const char* result) {
    const auto name = names_.extract(token);
    const auto failure = failures.find(token);
    SettledMessage message{name.empty() ? token : name.mapped(), result, ""};
    // Settled before: by the same frame on a stream that broke.
    if (failure != failures.end() && failure->second->error() != v1::SETTLE_ERROR_ALREADY_SETTLED) {
      message.result = SettleErrorName(failure->second->error());
      message.failure = SettleErrorText(*failure->second);
    }
    results.push_back(std::move(message));
  };
  for (const std::string& token : frame.ack_tokens()) add(token, "acked");
  for (const v1::Nacks& nacks : frame.nacks()) {
    for (const std::string& token : nacks.lease_tokens()) {
      add(token, nacks.kind() == v1::NACK_KIND_RELEASE ? "released" : "nacked");
    }
  }
  return results;
}

void ConsumeLink::WriteForever() {
  std::unique_lock lock(mu_);
  while (!is_over_) {
    if (call_ != nullptr && !is_half_closed_ && !outbox_.empty()) {
      v1::ConsumeRequest frame = std::move(outbox_.front());
      outbox_.pop_front();
      if (Settles(frame) || frame.extensions_size() > 0) frame.set_sequence(++sequence_);
      if (Settles(frame)) unanswered_[sequence_] = frame;
      const std::shared_ptr<Call> call = call_;
      is_writing_ = true;
      lock.unlock();
      // A failed write shows in the stream's end, after which unanswered settlements are sent again.
      call->stream->Write(frame);
      lock.lock();
      is_writing_ = false;
      changed_.notify_all();
      continue;
    }
    if (!DoWhatIsDue(lock)) changed_.wait_for(lock, kTick);
  }
}

bool ConsumeLink::DoWhatIsDue(std::unique_lock<std::mutex>& lock) {
  if (call_ == nullptr) return false;
  const Clock::time_point now = Clock::now();
  const std::shared_ptr<Call> call = call_;
  if (is_half_closed_) {
    if (now > half_closed_at_ + kFarewell) call->context.TryCancel();
    return false;
  }
  if (is_draining_ && is_settled()) {
    is_half_closed_ = true;
    half_closed_at_ = now;
    is_writing_ = true;
    lock.unlock();
    call->stream->WritesDone();
    lock.lock();
    is_writing_ = false;
    changed_.notify_all();
    return false;
  }
  if (server_draining_since_.has_value() &&
      (is_settled() || now > *server_draining_since_ + options_.draining_patience)) {
    call->context.TryCancel();
    return false;
  }
  if (!held_.empty() && now >= extended_at_ + lease_duration_ / 3) {
    ExtendLeases();
    return !outbox_.empty();
  }
  return false;
}

void ConsumeLink::ExtendLeases() {
  extended_at_ = Clock::now();
  v1::ConsumeRequest frame;
  v1::Extensions* group = nullptr;
  for (const std::string& token : held_) {
    if (lost_.contains(token)) continue;
    if (group == nullptr || group->lease_tokens_size() == kTokensPerGroupMax) {
      group = frame.add_extensions();
      *group->mutable_lease_duration() = ToProto(lease_duration_);
    }
    group->add_lease_tokens(token);
  }
  if (group != nullptr) outbox_.push_back(std::move(frame));
}

void ConsumeLink::PutIntoOutbox(v1::ConsumeRequest frame) {
  const auto release = [this](const auto& tokens) {
    for (const std::string& token : tokens) {
      held_.erase(token);
      lost_.erase(token);
    }
  };
  release(frame.ack_tokens());
  for (const v1::Nacks& nacks : frame.nacks()) release(nacks.lease_tokens());
  // Acks that wait for the same write share a frame.
  const bool is_only_acks = frame.nacks().empty();
  if (is_only_acks && !outbox_.empty() && outbox_.back().nacks().empty() && outbox_.back().ack_tokens_size() > 0 &&
      outbox_.back().ack_tokens_size() + frame.ack_tokens_size() <= kTokensPerGroupMax) {
    outbox_.back().mutable_ack_tokens()->MergeFrom(frame.ack_tokens());
  } else {
    outbox_.push_back(std::move(frame));
  }
  changed_.notify_all();
}

void ConsumeLink::Ack(const std::vector<std::string>& tokens) {
  if (tokens.empty()) return;
  v1::ConsumeRequest frame;
  frame.mutable_ack_tokens()->Assign(tokens.begin(), tokens.end());
  const std::lock_guard lock(mu_);
  PutIntoOutbox(std::move(frame));
}

void ConsumeLink::Nack(const std::vector<std::string>& tokens, v1::NackKind kind, const std::string& reason) {
  v1::ConsumeRequest frame;
  for (const std::string& token : tokens) {
    const int groups = frame.nacks_size();
    const bool is_full = groups == 0 || frame.nacks(groups - 1).lease_tokens_size() == kTokensPerGroupMax;
    v1::Nacks& nacks = is_full ? *frame.add_nacks() : *frame.mutable_nacks(groups - 1);
    nacks.set_kind(kind);
    nacks.set_reason(reason);
    nacks.add_lease_tokens(token);
  }
  if (tokens.empty()) return;
  const std::lock_guard lock(mu_);
  PutIntoOutbox(std::move(frame));
}

void ConsumeLink::Forget(const std::string& token) {
  const std::lock_guard lock(mu_);
  held_.erase(token);
  lost_.erase(token);
  names_.erase(token);
  changed_.notify_all();
}

bool ConsumeLink::IsLost(const std::string& token) const {
  const std::lock_guard lock(mu_);
  return lost_.contains(token);
}

void ConsumeLink::Drain() {
  const std::lock_guard lock(mu_);
  if (std::exchange(is_draining_, true)) return;
  if (call_ != nullptr) {
    v1::ConsumeRequest frame;
    frame.set_drain(true);
    outbox_.push_back(std::move(frame));
  }
  changed_.notify_all();
}

bool ConsumeLink::is_draining() const {
  const std::lock_guard lock(mu_);
  return is_draining_;
}

std::size_t ConsumeLink::held_count() const {
  const std::lock_guard lock(mu_);
  return held_.size();
}

}  // namespace postkeeper::cli
