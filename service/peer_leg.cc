#include "service/peer_leg.h"

#include <grpcpp/support/slice.h>

#include <asio/post.hpp>
#include <deque>
#include <utility>

#include "postkeeper/v1/message.pb.h"
#include "service/peers.h"
#include "service/relayed_consume.h"
#include "service/wire_codec.h"
#include "zkstore/errors.h"

namespace postkeeper {
namespace {

constexpr char kConsumePath[] = "/postkeeper.v1.MessageService/Consume";

class PeerLeg final : public ConsumeLeg, public std::enable_shared_from_this<PeerLeg> {
 public:
  PeerLeg(Desk& desk, asio::any_io_executor strand, std::chrono::system_clock::time_point deadline, Listener listener)
      : desk_(desk), strand_(std::move(strand)), deadline_(deadline), listener_(std::move(listener)) {}

  void Start(std::string owner, const LegOpening& opening) {
    grpc::Slice first = EncodeOpening(opening);
    Spawn(strand_, Connect(shared_from_this(), std::move(owner), grpc::ByteBuffer(&first, 1)));
  }

  void Settle(std::int64_t sequence, const SettleOrders& orders) override {
    waiting_.push_back(EncodeOrders(sequence, orders));
    SendNext();
  }
  void AddCredit(const CheckedCredit& credit) override {
    credit_.messages += credit.messages;
    credit_.bytes += credit.bytes;
    SendNext();
  }
  void Stop() override {
    if (is_stopped_) return;
    is_stopped_ = stops_ = true;
    SendNext();
  }
  void AskCounts() override {}  // the owner sends them with its heartbeats
  void Release() override {
    is_releasing_ = true;
    SendNext();
  }
  void Close() override {
    if (std::exchange(is_closed_, true)) return;
    if (!relay_) return;
    desk_.metrics.relays().StreamRelayed(is_broken_ ? RelayResult::kBroken : RelayResult::kAnswered);
    relay_->Cancel();
    relay_.reset();
  }

 private:
  Task<void> Connect(std::shared_ptr<PeerLeg> self, std::string owner, grpc::ByteBuffer first) {
    const std::shared_ptr<grpc::Channel> channel = desk_.peers->ChannelTo(owner);
    const bool is_connected = co_await WaitUntilConnected(desk_.environment, channel);
    if (is_closed_) co_return;
    if (!is_connected) {
      desk_.metrics.relays().StreamRelayed(RelayResult::kNoOwner);
      End(MakeError(Reason::kNoOwner, Cat("the replica at ", owner, " works for it and does not answer")));
      co_return;
    }
    StreamRelay::Listener listener;
    listener.on_frame = [self](grpc::ByteBuffer frame) { self->OnFrame(std::move(frame)); };
    listener.on_sent = [self] {
      self->Later([](PeerLeg& leg) {
        leg.is_sending_ = false;
        leg.SendNext();
      });
    };
    listener.on_end = [self](RelayedAnswer answer) {
      self->Later([status = FromPeer(answer.status), is_broken = IsUnexplained(answer.status)](PeerLeg& leg) {
        leg.is_broken_ = is_broken;
        leg.End(status);
      });
    };
    is_sending_ = true;
    relay_ = StreamRelay::Start(channel, {kConsumePath, desk_.replica, deadline_}, first, std::move(listener));
  }

  template <typename Function>
  void Later(Function function) {
    asio::post(strand_, [self = shared_from_this(), function = std::move(function)]() mutable {
      if (!self->is_closed_) function(*self);
    });
  }

  // ---- Frames out

  void SendNext() {
    if (is_sending_ || is_closed_ || !relay_) return;
    if (!waiting_.empty()) {
      grpc::Slice frame = std::move(waiting_.front());
      waiting_.pop_front();
      return Send(std::move(frame));
    }
    const bool has_credit = credit_.messages > 0 || credit_.bytes > 0;
    if (has_credit || stops_) {
      v1::ConsumeRequest request;
      if (has_credit) {
        request.mutable_credit()->set_messages(static_cast<std::int32_t>(credit_.messages));
        request.mutable_credit()->set_bytes(credit_.bytes);
      }
      request.set_drain(stops_);
      credit_ = {};
      stops_ = false;
      return Send(EncodeMessage(request));
    }
    if (is_releasing_) relay_->HalfClose();
  }

  void Send(grpc::Slice frame) {
    is_sending_ = true;
    relay_->Send(grpc::ByteBuffer(&frame, 1));
  }

  // ---- Frames in

  // On gRPC's thread: what costs time.
  void OnFrame(grpc::ByteBuffer bytes) {
    grpc::Slice frame;
    if (!bytes.DumpToSingleSlice(&frame).ok()) return Garbled();
    if (IsDeliveries(frame)) {
      absl::StatusOr<LegDeliveries> deliveries = ScanDeliveries(std::move(frame));
      if (!deliveries.ok()) return Garbled();
      Later([deliveries = *std::move(deliveries)](PeerLeg& leg) mutable {
        leg.listener_.on_deliveries(std::move(deliveries));
        leg.ReadMore();
      });
      return;
    }
    v1::ConsumeResponse response;
    if (!response.ParseFromArray(frame.begin(), static_cast<int>(frame.size()))) return Garbled();
    Later([response = std::move(response)](PeerLeg& leg) {
      leg.Receive(response);
      leg.ReadMore();
    });
  }

  void Garbled() {
    Later([](PeerLeg& leg) { leg.End(MakeError(Reason::kNoOwner, "the owner sent what cannot be understood")); });
  }

  void Receive(const v1::ConsumeResponse& response) {
    switch (response.frame_case()) {
      case v1::ConsumeResponse::kOpened: {
        const google::protobuf::Duration& lease = response.opened().lease_duration();
        return listener_.on_opened(std::chrono::seconds(lease.seconds()) + std::chrono::nanoseconds(lease.nanos()));
      }
      case v1::ConsumeResponse::kSettled: {
        std::vector<SettleFailure> failures;
        for (const v1::SettleFailure& from : response.settled().failures()) {
          failures.push_back({from.lease_token(), static_cast<SettleError>(from.error()), from.detail()});
        }
        return listener_.on_settled(response.settled().sequence(), std::move(failures));
      }
      case v1::ConsumeResponse::kHeartbeat: {
        Dispatcher::Counts counts;
        counts.ready = response.heartbeat().ready();
        counts.delayed = response.heartbeat().delayed();
        counts.leased = response.heartbeat().leased();
        return listener_.on_counts(counts);
      }
      case v1::ConsumeResponse::kDraining:
        return listener_.on_leaving();
      case v1::ConsumeResponse::kDeliveries:
      case v1::ConsumeResponse::FRAME_NOT_SET:
        return;  // deliveries were met above; a kind that is not known here is passed over
    }
  }

  void ReadMore() {
    if (relay_) relay_->ReadMore();
  }

  void End(const absl::Status& status) {
    if (is_closed_) return;
    Close();
    listener_.on_end(status);
  }

  Desk& desk_;
  const asio::any_io_executor strand_;
  const std::chrono::system_clock::time_point deadline_;
  const Listener listener_;
  bool is_broken_ = false;              // the connection, without a word of the owner's
  std::shared_ptr<StreamRelay> relay_;  // once it is connected, until it is closed
  std::deque<grpc::Slice> waiting_;     // frames that settle
  CheckedCredit credit_;                // to be given
  bool stops_ = false;                  // to be said
  bool is_stopped_ = false;
  bool is_releasing_ = false;
  bool is_sending_ = false;
  bool is_closed_ = false;
};

}  // namespace

std::shared_ptr<ConsumeLeg> MakePeerLeg(Desk& desk, asio::any_io_executor strand, std::string owner,
                                        std::chrono::system_clock::time_point deadline, const LegOpening& opening,
                                        ConsumeLeg::Listener listener) {
  auto leg = std::make_shared<PeerLeg>(desk, std::move(strand), deadline, std::move(listener));
  leg->Start(std::move(owner), opening);
  return leg;
}

}  // namespace postkeeper
