#include "service/consume_leg.h"

#include <asio/post.hpp>
#include <deque>
#include <optional>
#include <utility>

#include "zkstore/errors.h"

namespace postkeeper {
namespace {

class LocalLeg final : public ConsumeLeg, public std::enable_shared_from_this<LocalLeg> {
 public:
  LocalLeg(std::shared_ptr<QueueEngine> engine, Listener listener)
      : engine_(std::move(engine)), listener_(std::move(listener)) {}

  void Start(LegOpening opening) {
    Later([opening = std::move(opening)](LocalLeg& self) { self.Open(opening); });
  }

  void Settle(std::int64_t sequence, const SettleOrders& orders) override {
    ++settling_;
    Spawn(engine_->strand(), SettleNow(shared_from_this(), sequence, orders));
  }
  void AddCredit(const CheckedCredit& credit) override {
    if (!consumer_) return;
    if (absl::Status status = engine_->AddCredit(*consumer_, credit); !status.ok()) EndLater(std::move(status));
  }
  void Stop() override {
    if (consumer_) engine_->StopConsumer(*consumer_);
  }
  void AskCounts() override {
    Later([](LocalLeg& self) {
      if (self.engine_->is_serving()) self.listener_.on_counts(self.engine_->CountsRead());
    });
  }
  void Release() override {
    Leave(/*releases=*/true);
    is_released_ = true;
    if (settling_ == 0) EndLater(absl::OkStatus());
  }
  void Close() override {
    is_closed_ = true;
    Leave(/*releases=*/false);
  }

 private:
  template <typename Function>
  void Later(Function function) {
    asio::post(engine_->strand(), [self = shared_from_this(), function = std::move(function)]() mutable {
      if (!self->is_closed_) function(*self);
    });
  }
  void EndLater(absl::Status status) {
    Later([status = std::move(status)](LocalLeg& self) { self.End(status); });
  }
  void End(const absl::Status& status) {
    Close();
    listener_.on_end(status);
  }

  void Open(const LegOpening& opening) {
    QueueEngine::ConsumerCallbacks callbacks;
    // What comes inside AddConsumer is kept until the listener has heard that the leg is open.
    callbacks.on_deliveries = [self = shared_from_this()](std::vector<Delivery> deliveries, Duration lease) {
      if (self->is_closed_) return;
      if (self->is_open_) return self->Deliver(std::move(deliveries), lease);
      self->early_.emplace_back(std::move(deliveries), lease);
    };
    callbacks.on_end = [self = shared_from_this()](absl::Status why) {
      self->consumer_.reset();
      self->EndLater(std::move(why));
    };
    callbacks.ends_with_reign = true;
    if (!engine_->is_serving()) return End(MakeError(Reason::kNoOwner, "this replica works for it no longer"));
    const absl::StatusOr<QueueEngine::ConsumerId> consumer =
        engine_->AddConsumer(opening.open, std::move(callbacks), opening.held);
    if (!consumer.ok()) return End(consumer.status());
    consumer_ = *consumer;
    if (opening.is_stopped) Stop();
    const Duration of_queue = std::get<QueueSettings>(engine_->entry().settings).lease_duration;
    listener_.on_opened(opening.open.lease.value_or(of_queue));
    while (!early_.empty() && !is_closed_) {
      auto [deliveries, lease] = std::move(early_.front());
      early_.pop_front();
      Deliver(std::move(deliveries), lease);
    }
    is_open_ = true;
  }

  void Deliver(std::vector<Delivery> deliveries, Duration lease) {
    LegDeliveries given;
    given.lease = lease;
    given.leases.reserve(deliveries.size());
    for (const Delivery& delivery : deliveries) {
      given.leases.push_back({delivery.token, static_cast<std::int64_t>(delivery.message().size()), lease});
    }
    given.deliveries = std::move(deliveries);
    listener_.on_deliveries(std::move(given));
  }

  Task<void> SettleNow(std::shared_ptr<LocalLeg> self, std::int64_t sequence, SettleOrders orders) {
    (void)self;  // keeps this alive
    absl::StatusOr<std::vector<SettleFailure>> failures = co_await engine_->Settle(std::move(orders));
    --settling_;
    if (is_closed_) co_return;
    if (!failures.ok()) {
      End(failures.status());
      co_return;
    }
    listener_.on_settled(sequence, *std::move(failures));
    if (is_released_ && settling_ == 0) EndLater(absl::OkStatus());
  }

  void Leave(bool releases) {
    if (consumer_) engine_->RemoveConsumer(*std::exchange(consumer_, std::nullopt), releases);
  }

  const std::shared_ptr<QueueEngine> engine_;
  const Listener listener_;
  std::optional<QueueEngine::ConsumerId> consumer_;  // while the engine knows this leg
  std::deque<std::pair<std::vector<Delivery>, Duration>> early_;
  bool is_open_ = false;
  int settling_ = 0;
  bool is_released_ = false;
  bool is_closed_ = false;
};

}  // namespace

std::shared_ptr<ConsumeLeg> MakeLocalLeg(std::shared_ptr<QueueEngine> engine, LegOpening opening,
                                         ConsumeLeg::Listener listener) {
  auto leg = std::make_shared<LocalLeg>(std::move(engine), std::move(listener));
  leg->Start(std::move(opening));
  return leg;
}

}  // namespace postkeeper
