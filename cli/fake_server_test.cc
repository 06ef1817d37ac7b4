// The body of FakeServer. (Beside the tests, since it is no part of the program.)
#include "cli/fake_server.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "postkeeper/v1/admin.grpc.pb.h"
#include "postkeeper/v1/cluster.grpc.pb.h"
#include "postkeeper/v1/message.grpc.pb.h"

namespace postkeeper::cli {
namespace {

using grpc::Status;
using grpc::StatusCode;

constexpr auto kTick = std::chrono::milliseconds(5);

// google.rpc.Status with one ErrorInfo, put together by hand: all texts here are shorter than 128 bytes.
std::string Field(int number, const std::string& bytes) {
  return std::string() + static_cast<char>(number << 3 | 2) + static_cast<char>(bytes.size()) + bytes;
}

Status Refuse(StatusCode code, const std::string& text, const std::string& reason,
              const std::map<std::string, std::string>& metadata = {}) {
  std::string info = Field(1, reason) + Field(2, "postkeeper");
  for (const auto& [key, value] : metadata) info += Field(3, Field(1, key) + Field(2, value));
  const std::string any = Field(1, "type.googleapis.com/google.rpc.ErrorInfo") + Field(2, info);
  return Status(code, text, Field(3, any));
}

Status NoQueue(const std::string& name) {
  return Refuse(StatusCode::NOT_FOUND, "queue " + name + " does not exist. Create it: postkeeper queue create " + name,
                "QUEUE_NOT_FOUND");
}

Status Broken() { return Status(StatusCode::UNAVAILABLE, "the connection is gone"); }

// True once, when the counter of a fault has run down to zero.
bool Strikes(int& fault) {
  if (fault < 0) return false;
  return fault-- == 0;
}

std::string Position(std::size_t index) {
  std::string number = std::to_string(index);
  return "position-" + std::string(17 - number.size(), '0') + number;
}

}  // namespace

struct FakeServer::Impl {
  std::mutex mu;
  std::condition_variable changed;
  FakeState state;
  bool is_stopping = false;
  int next_id = 0;

  class Messages;
  class Admin;
  class Cluster;
  std::unique_ptr<grpc::Service> messages, admin, cluster;
  std::unique_ptr<grpc::Server> server;
  int port = 0;

  void Start();
  void Shutdown();

  // All with mu held.
  template <typename Frame>
  std::vector<std::string> Append(std::vector<FakeMessage>& log, const Frame& frame,
                                  google::protobuf::RepeatedField<int>* duplicates) {
    std::vector<std::string> ids;
    if (const auto known = state.request_ids.find(frame.request_id()); known != state.request_ids.end()) {
      ++state.repeated_frames;
      return known->second;
    }
    ++state.append_frames;
    for (const v1::Message& message : frame.messages()) {
      FakeMessage stored;
      stored.id = "id-" + std::to_string(next_id++);
      if (!message.dedup_id().empty()) {
        const auto [known, is_new] = state.dedup_ids.try_emplace(message.dedup_id(), stored.id);
        if (!is_new) {
          duplicates->Add(static_cast<int>(ids.size()));
          ids.push_back(known->second);
          continue;
        }
      }
      stored.body = message.body();
      stored.attributes.insert(message.attributes().begin(), message.attributes().end());
      stored.content_type = message.content_type();
      ids.push_back(stored.id);
      log.push_back(stored);
    }
    if (!frame.request_id().empty()) state.request_ids[frame.request_id()] = ids;
    changed.notify_all();
    return ids;
  }

  // Leases the first ready message; the token tells its index and attempt.
  bool Take(const std::string& queue, v1::Delivery& delivery) {
    if (state.hides_dequeue) return false;
    std::vector<FakeMessage>& messages_of = state.queues[queue];
    for (std::size_t i = 0; i < messages_of.size(); ++i) {
      FakeMessage& message = messages_of[i];
      if (message.is_leased || message.is_settled) continue;
      message.is_leased = true;
      ++message.attempt;
      delivery.set_message_id(message.id);
      delivery.set_lease_token("token-" + std::to_string(i) + "-" + std::to_string(message.attempt));
      delivery.set_attempt(message.attempt);
      delivery.set_last_reason(message.last_reason);
      delivery.mutable_message()->set_body(message.body);
      delivery.mutable_message()->set_content_type(message.content_type);
      delivery.mutable_message()->mutable_attributes()->insert(message.attributes.begin(), message.attributes.end());
      changed.notify_all();
      return true;
    }
    return false;
  }

  template <typename Tokens, typename Act>
  void Settle(const std::string& queue, const Tokens& tokens,
              google::protobuf::RepeatedPtrField<v1::SettleFailure>* out, Act act) {
    for (const std::string& token : tokens) {
      int index = -1;
      int attempt = -1;
      std::vector<FakeMessage>& messages_of = state.queues[queue];
      const auto fail = [&](v1::SettleError error) {
        v1::SettleFailure& failure = *out->Add();
        failure.set_lease_token(token);
        failure.set_error(error);
      };
      if (std::sscanf(token.c_str(), "token-%d-%d", &index, &attempt) != 2 || index >= int(messages_of.size())) {
        fail(v1::SETTLE_ERROR_MALFORMED_TOKEN);
      } else if (messages_of[index].is_settled) {
        fail(v1::SETTLE_ERROR_ALREADY_SETTLED);
      } else if (messages_of[index].attempt != attempt || !messages_of[index].is_leased) {
        fail(v1::SETTLE_ERROR_STALE_LEASE);
      } else {
        act(messages_of[index]);
      }
    }
    changed.notify_all();
  }

  template <typename Tokens>
  void Ack(const std::string& queue, const Tokens& tokens, google::protobuf::RepeatedPtrField<v1::SettleFailure>* out) {
    Settle(queue, tokens, out, [](FakeMessage& message) { message.is_settled = true; });
  }

  void Nack(const std::string& queue, const v1::Nacks& nacks,
            google::protobuf::RepeatedPtrField<v1::SettleFailure>* out) {
    Settle(queue, nacks.lease_tokens(), out, [&](FakeMessage& message) {
      message.is_leased = false;
      message.last_reason = nacks.reason();
      if (nacks.kind() == v1::NACK_KIND_RELEASE) {
        --message.attempt;
        ++state.released_tokens;
      }
    });
  }

  void Extend(const std::string& queue, const v1::Extensions& extensions,
              google::protobuf::RepeatedPtrField<v1::SettleFailure>* out) {
    Settle(queue, extensions.lease_tokens(), out, [&](FakeMessage&) { ++state.extended_tokens; });
    state.refused_extensions += out->size();
  }
};

class FakeServer::Impl::Messages : public v1::MessageService::Service {
 public:
  explicit Messages(Impl& impl) : impl_(impl) {}

  Status Enqueue(grpc::ServerContext*, const v1::EnqueueRequest* request, v1::EnqueueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    const auto queue = impl_.state.queues.find(request->queue());
    if (queue == impl_.state.queues.end()) return NoQueue(request->queue());
    for (const std::string& id : impl_.Append(queue->second, *request, response->mutable_duplicates())) {
      response->add_message_ids(id);
    }
    return Status::OK;
  }

  Status Publish(grpc::ServerContext*, const v1::PublishRequest* request, v1::PublishResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    for (const std::string& id :
         impl_.Append(impl_.state.topics[request->topic()], *request, response->mutable_duplicates())) {
      response->add_message_ids(id);
    }
    return Status::OK;
  }

  Status EnqueueStream(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::EnqueueStreamResponse, v1::EnqueueStreamRequest>* stream) override {
    v1::EnqueueStreamRequest frame;
    while (stream->Read(&frame)) {
      v1::EnqueueStreamResponse response;
      {
        const std::lock_guard lock(impl_.mu);
        if (Strikes(impl_.state.refuses_append_after)) {
          return Refuse(StatusCode::RESOURCE_EXHAUSTED, "queue " + frame.queue() + " is full", "QUEUE_FULL");
        }
        for (const std::string& id :
             impl_.Append(impl_.state.queues[frame.queue()], frame, response.mutable_duplicates())) {
          response.add_message_ids(id);
        }
        if (Strikes(impl_.state.breaks_append_stream_after)) return Broken();
      }
      stream->Write(response);
    }
    return Status::OK;
  }

  Status Dequeue(grpc::ServerContext*, const v1::DequeueRequest* request, v1::DequeueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    if (!impl_.state.queues.contains(request->source())) return NoQueue(request->source());
    for (int i = 0; i < std::max(1, request->max_messages()); ++i) {
      v1::Delivery delivery;
      if (!impl_.Take(request->source(), delivery)) break;
      response->add_deliveries()->Swap(&delivery);
    }
    response->mutable_lease_duration()->set_seconds(30);
    return Status::OK;
  }

  Status Ack(grpc::ServerContext*, const v1::AckRequest* request, v1::AckResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    impl_.Ack(request->source(), request->lease_tokens(), response->mutable_failures());
    return Status::OK;
  }

  Status Nack(grpc::ServerContext*, const v1::NackRequest* request, v1::NackResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    impl_.Nack(request->source(), request->nacks(), response->mutable_failures());
    return Status::OK;
  }

  Status Extend(grpc::ServerContext*, const v1::ExtendRequest* request, v1::ExtendResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    impl_.Extend(request->source(), request->extensions(), response->mutable_failures());
    return Status::OK;
  }

  Status Consume(grpc::ServerContext* context,
                 grpc::ServerReaderWriter<v1::ConsumeResponse, v1::ConsumeRequest>* stream) override {
    return ConsumeStream(impl_, context, stream).Run();
  }

  Status Subscribe(grpc::ServerContext* context, const v1::SubscribeRequest* request,
                   grpc::ServerWriter<v1::SubscribeResponse>* writer) override {
    std::unique_lock lock(impl_.mu);
    ++impl_.state.subscribe_streams;
    impl_.changed.notify_all();
    const std::vector<FakeMessage>& log = impl_.state.topics[request->topic()];
    std::size_t next = log.size();
    if (request->start().after() == Position(999)) {
      return Refuse(StatusCode::OUT_OF_RANGE, "messages after the position were trimmed", "POSITION_TRIMMED",
                    {{"oldest_position", Position(7)}});
    }
    if (request->start().earliest() || request->start().has_time()) next = 0;
    if (!request->start().after().empty()) next = std::stoul(request->start().after().substr(9));
    v1::SubscribeResponse opening;
    opening.set_position(Position(next));
    opening.set_tail(Position(log.size()));
    writer->Write(opening);
    while (!context->IsCancelled() && !impl_.is_stopping) {
      if (next == log.size()) {
        impl_.changed.wait_for(lock, kTick);
        continue;
      }
      if (Strikes(impl_.state.breaks_subscribe_after)) return Broken();
      v1::SubscribeResponse response;
      v1::TopicMessage& message = *response.add_messages();
      message.set_message_id(log[next].id);
      message.set_topic(request->topic());
      message.mutable_message()->set_body(log[next].body);
      message.set_position(Position(++next));
      response.set_position(Position(next));
      response.set_tail(Position(log.size()));
      writer->Write(response);
    }
    return Broken();
  }

 private:
  // One Consume call: this thread delivers, a second one reads.
  class ConsumeStream {
   public:
    using Stream = grpc::ServerReaderWriter<v1::ConsumeResponse, v1::ConsumeRequest>;

    ConsumeStream(Impl& impl, grpc::ServerContext* context, Stream* stream)
        : impl_(impl), context_(context), stream_(stream) {}

    Status Run() {
      v1::ConsumeRequest first;
      if (!stream_->Read(&first) || !first.has_open()) return Status(StatusCode::INVALID_ARGUMENT, "no open");
      source_ = first.open().source();
      credit_ = first.open().credit().messages();
      is_draining_ = first.drain();
      std::unique_lock lock(impl_.mu);
      if (!impl_.state.queues.contains(source_)) return NoQueue(source_);
      ++impl_.state.consume_streams;
      impl_.changed.notify_all();
      v1::ConsumeResponse opened;
      SetLease(opened.mutable_opened()->mutable_lease_duration());
      stream_->Write(opened);
      std::thread reader([this] { Read(); });
      while (!has_ended_ && !is_broken_ && !context_->IsCancelled() && !impl_.is_stopping) {
        v1::ConsumeResponse response;
        if (std::exchange(impl_.state.drains_consume, false)) {
          is_draining_ = true;
          response.mutable_draining()->set_reason("test");
          stream_->Write(response);
        } else if (!is_draining_ && credit_ > 0 &&
                   impl_.Take(source_, *response.mutable_deliveries()->add_deliveries())) {
          --credit_;
          held_.insert(response.deliveries().deliveries(0).lease_token());
          SetLease(response.mutable_deliveries()->mutable_lease_duration());
          stream_->Write(response);
        } else {
          impl_.changed.wait_for(lock, kTick);
        }
      }
      // A stream that breaks ends for the reader, too; only a half-close releases.
      const bool is_done = has_ended_ && !is_broken_ && !impl_.is_stopping && !context_->IsCancelled();
      if (is_done) Release();
      lock.unlock();
      if (!is_done) context_->TryCancel();
      reader.join();
      return is_done ? Status::OK : Broken();
    }

   private:
    void SetLease(google::protobuf::Duration* duration) {
      duration->set_seconds(impl_.state.lease_millis / 1000);
      duration->set_nanos(impl_.state.lease_millis % 1000 * 1'000'000);
    }

    // What is left at the half-close.
    void Release() {
      v1::Nacks nacks;
      nacks.set_kind(v1::NACK_KIND_RELEASE);
      for (const std::string& token : held_) nacks.add_lease_tokens(token);
      google::protobuf::RepeatedPtrField<v1::SettleFailure> failures;
      impl_.Nack(source_, nacks, &failures);
    }

    void Read() {
      v1::ConsumeRequest request;
      while (stream_->Read(&request)) {
        const std::lock_guard lock(impl_.mu);
        v1::ConsumeResponse response;
        v1::Settled& settled = *response.mutable_settled();
        impl_.Ack(source_, request.ack_tokens(), settled.mutable_failures());
        for (const std::string& token : request.ack_tokens()) credit_ += static_cast<int>(held_.erase(token));
        for (const v1::Nacks& nacks : request.nacks()) {
          impl_.Nack(source_, nacks, settled.mutable_failures());
          for (const std::string& token : nacks.lease_tokens()) credit_ += static_cast<int>(held_.erase(token));
        }
        for (const v1::Extensions& extensions : request.extensions()) {
          impl_.Extend(source_, extensions, settled.mutable_failures());
        }
        is_draining_ = is_draining_ || request.drain();
        const bool settles = request.ack_tokens_size() + request.nacks_size() > 0;
        if (settles && Strikes(impl_.state.breaks_consume_after_settles)) {
          is_broken_ = true;
        } else if (settles || request.extensions_size() > 0) {
          settled.set_sequence(request.sequence());
          stream_->Write(response);
        }
        impl_.changed.notify_all();
      }
      const std::lock_guard lock(impl_.mu);
      has_ended_ = true;
      impl_.changed.notify_all();
    }

    Impl& impl_;
    grpc::ServerContext* const context_;
    Stream* const stream_;
    std::string source_;
    // Guarded by the server's lock.
    int credit_ = 0;
    bool is_draining_ = false;
    bool is_broken_ = false;
    bool has_ended_ = false;
    std::set<std::string> held_;
  };

  Impl& impl_;
};

class FakeServer::Impl::Admin : public v1::AdminService::Service {
 public:
  explicit Admin(Impl& impl) : impl_(impl) {}

  Status CreateQueue(grpc::ServerContext*, const v1::CreateQueueRequest* request,
                     v1::CreateQueueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    impl_.state.calls.push_back("CreateQueue " + request->queue().ShortDebugString());
    impl_.state.queues[request->queue().name()];
    *response->mutable_queue() = request->queue();
    response->mutable_queue()->set_name("namespaces/default/queues/" + request->queue().name());
    return Status::OK;
  }

  Status GetQueue(grpc::ServerContext*, const v1::GetQueueRequest* request, v1::GetQueueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    if (!impl_.state.queues.contains(request->name())) return NoQueue(request->name());
    response->mutable_queue()->set_name("namespaces/default/queues/" + request->name());
    response->mutable_queue()->mutable_lease_duration()->set_seconds(90);
    response->mutable_queue()->set_max_bytes(256 << 20);
    return Status::OK;
  }

  // Pages of one.
  Status ListQueues(grpc::ServerContext*, const v1::ListQueuesRequest* request,
                    v1::ListQueuesResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    const auto queue = impl_.state.queues.upper_bound(request->page_token());
    if (queue == impl_.state.queues.end()) return Status::OK;
    response->add_queues()->set_name(queue->first);
    if (std::next(queue) != impl_.state.queues.end()) response->set_next_page_token(queue->first);
    return Status::OK;
  }

  Status UpdateQueue(grpc::ServerContext*, const v1::UpdateQueueRequest* request,
                     v1::UpdateQueueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    std::string mask;
    for (const std::string& path : request->update_mask().paths()) mask += " " + path;
    impl_.state.calls.push_back("UpdateQueue" + mask);
    *response->mutable_queue() = request->queue();
    return Status::OK;
  }

  Status DeleteQueue(grpc::ServerContext*, const v1::DeleteQueueRequest* request, v1::DeleteQueueResponse*) override {
    const std::lock_guard lock(impl_.mu);
    const bool was_there = impl_.state.queues.erase(request->name()) > 0;
    return was_there || request->allow_missing() ? Status::OK : NoQueue(request->name());
  }

  Status PurgeQueue(grpc::ServerContext*, const v1::PurgeQueueRequest* request,
                    v1::PurgeQueueResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    response->set_purged(static_cast<std::int64_t>(impl_.state.queues[request->name()].size()));
    impl_.state.queues[request->name()].clear();
    return Status::OK;
  }

  Status GetStats(grpc::ServerContext*, const v1::GetStatsRequest* request, v1::GetStatsResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    for (const FakeMessage& message : impl_.state.queues[request->source()]) {
      if (message.is_settled) continue;
      if (message.is_leased) {
        response->set_leased(response->leased() + 1);
      } else {
        response->set_ready(response->ready() + 1);
      }
    }
    response->mutable_oldest_age()->set_seconds(61);
    return Status::OK;
  }

 private:
  Impl& impl_;
};

class FakeServer::Impl::Cluster : public v1::ClusterService::Service {
 public:
  explicit Cluster(Impl& impl) : impl_(impl) {}

  Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*,
                       v1::GetServerInfoResponse* response) override {
    response->set_version("9.8.7");
    response->set_replica("replica-1");
    (*response->mutable_limits())["message_bytes"] = 524288;
    response->add_unserved("postkeeper.v1.Message.priority");
    return Status::OK;
  }

  // The token is the index to go on from.
  Status ListReplicas(grpc::ServerContext*, const v1::ListReplicasRequest* request,
                      v1::ListReplicasResponse* response) override {
    const std::lock_guard lock(impl_.mu);
    std::size_t next = request->page_token().empty() ? 0 : std::stoul(request->page_token());
    const std::size_t end =
        std::min(next + static_cast<std::size_t>(impl_.state.replicas_per_page), impl_.state.replicas.size());
    for (; next < end; ++next) {
      v1::Replica& replica = *response->add_replicas();
      replica.set_name(impl_.state.replicas[next].name);
      replica.set_address(impl_.state.replicas[next].address);
      replica.set_version("9.8.7");
      replica.mutable_start_time()->set_seconds(1'900'000'000);
      replica.set_sources_owned(impl_.state.replicas[next].sources_owned);
    }
    if (end < impl_.state.replicas.size()) response->set_next_page_token(std::to_string(end));
    return Status::OK;
  }

 private:
  Impl& impl_;
};

void FakeServer::Impl::Start() {
  messages = std::make_unique<Messages>(*this);
  admin = std::make_unique<Admin>(*this);
  cluster = std::make_unique<Cluster>(*this);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(messages.get());
  builder.RegisterService(admin.get());
  builder.RegisterService(cluster.get());
  is_stopping = false;
  server = builder.BuildAndStart();
  server->GetHealthCheckService()->SetServingStatus("postkeeper.v1.MessageService", true);
}

void FakeServer::Impl::Shutdown() {
  {
    const std::lock_guard lock(mu);
    is_stopping = true;
  }
  changed.notify_all();
  if (server) server->Shutdown(std::chrono::system_clock::now());
  server.reset();
}

FakeServer::FakeServer() : impl_(std::make_unique<Impl>()) { impl_->Start(); }

FakeServer::~FakeServer() { impl_->Shutdown(); }

std::string FakeServer::address() const { return "127.0.0.1:" + std::to_string(impl_->port); }

void FakeServer::Stop() { impl_->Shutdown(); }

void FakeServer::Restart() {
  impl_->Shutdown();
  impl_->Start();
}

void FakeServer::AddMessages(const std::string& queue, const std::vector<std::string>& bodies) {
  With([&](FakeState& state) {
    state.queues[queue];
    for (const std::string& body : bodies) {
      FakeMessage message;
      message.id = "id-" + std::to_string(impl_->next_id++);
      message.body = body;
      state.queues[queue].push_back(message);
    }
  });
}

void FakeServer::AddTopicMessages(const std::string& topic, const std::vector<std::string>& bodies) {
  With([&](FakeState& state) {
    for (const std::string& body : bodies) {
      FakeMessage message;
      message.id = "id-" + std::to_string(impl_->next_id++);
      message.body = body;
      state.topics[topic].push_back(message);
    }
  });
}

void FakeServer::With(const std::function<void(FakeState&)>& function) {
  const std::lock_guard lock(impl_->mu);
  function(impl_->state);
  impl_->changed.notify_all();
}

bool FakeServer::WaitUntil(const std::function<bool(const FakeState&)>& condition) {
  std::unique_lock lock(impl_->mu);
  return impl_->changed.wait_for(lock, std::chrono::seconds(20), [&] { return condition(impl_->state); });
}

}  // namespace postkeeper::cli
