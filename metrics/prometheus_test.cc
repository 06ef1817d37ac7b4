#include "metrics/prometheus.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "metrics/reference.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::Not;

std::unique_ptr<PrometheusMetrics> Make(int queues_max = 1000) {
  return PrometheusMetrics::Make(
      {.queues_max = queues_max, .version = "1.2.3", .store_format = 1, .limits = {{"calls", 100}}});
}

// The value of a series, given as its whole left side; "none" if there is no such series.
std::string ValueOf(const std::string& dump, const std::string& series) {
  const std::size_t at = ("\n" + dump).find("\n" + series + " ");
  if (at == std::string::npos) return "none";
  const std::size_t start = at + series.size() + 1;
  return dump.substr(start, dump.find('\n', start) - start);
}
std::string ValueOf(const PrometheusMetrics& metrics, const std::string& series) {
  return ValueOf(metrics.Dump(), series);
}

// What a scraper gets: the whole answer to one HTTP request. Read up to its stated length, since the server keeps the
// connection for a while.
std::string Scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string answer;
  std::array<char, 4096> buffer;
  std::size_t wanted = std::string::npos;
  while (answer.size() < wanted) {
    const ssize_t size = read(fd, buffer.data(), buffer.size());
    if (size <= 0) break;
    answer.append(buffer.data(), static_cast<std::size_t>(size));
    const std::string kLength = "Content-Length: ";
    const std::size_t length = answer.find(kLength);
    const std::size_t body = answer.find("\r\n\r\n");
    if (length != std::string::npos && body != std::string::npos) {
      wanted = body + 4 + std::strtoull(answer.c_str() + length + kLength.size(), nullptr, 10);
    }
  }
  close(fd);
  EXPECT_EQ(answer.size(), wanted);
  return answer;
}

// What is counted arrives under the name and labels that dashboards rely on.
TEST(PrometheusTest, WhatIsCountedIsSeen) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  const UseOfEverything everything(*metrics);
  const std::string dump = metrics->Dump();
  const std::string queue = "{queue=\"namespaces/default/queues/q\"}";
  const std::string topic = "{topic=\"namespaces/default/topics/t\"}";
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_enqueued_messages_total" + queue), "10");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_enqueued_bytes_total" + queue), "1000");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_delivered_messages_total" + queue), "7");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_redelivered_messages_total" + queue), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_acked_messages_total" + queue), "3");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_lapsed_leases_total" + queue), "4");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_purged_messages_total" + queue), "5");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_deleted_messages_total" + queue), "6");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_time_seconds_sum" + queue), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_bytes" + queue), "4");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_consumers" + queue), "5");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_consumers_with_credit" + queue), "6");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_oldest_age_seconds" + queue), "1.5");
  const std::string name = "{queue=\"namespaces/default/queues/q\",";
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_messages" + name + "state=\"ready\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_messages" + name + "state=\"delayed\"}"), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_queue_messages" + name + "state=\"leased\"}"), "3");
  const std::string nacked = "postkeeper_queue_nacked_messages_total{kind=";
  EXPECT_EQ(ValueOf(dump, nacked + "\"retry\",queue=\"namespaces/default/queues/q\"}"), "1");
  EXPECT_EQ(ValueOf(dump, nacked + "\"release\",queue=\"namespaces/default/queues/q\"}"), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_published_messages_total" + topic), "11");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_published_bytes_total" + topic), "1100");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_delivered_messages_total" + topic), "22");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_trimmed_messages_total" + topic), "3");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_messages" + topic), "6");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_bytes" + topic), "7");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_subscribers" + topic), "8");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_subscribers_behind" + topic), "9");
  EXPECT_EQ(ValueOf(dump, "postkeeper_topic_delivery_age_seconds_sum" + topic), "0.04");
  EXPECT_EQ(ValueOf(dump, "postkeeper_batch_messages_sum"), "100");
  EXPECT_EQ(ValueOf(dump, "postkeeper_batch_bytes_sum"), "5000");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_requests_total{code=\"ok\",operation=\"multi\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_requests_total{code=\"connection_loss\",operation=\"multi\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_request_seconds_count{operation=\"multi\"}"), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_session_expirations_total"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_connected"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_requests_in_flight"), "9");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_watched_path_bytes"), "10");
  EXPECT_EQ(ValueOf(dump, "postkeeper_zookeeper_watches"), "11");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownership_changes_total{change=\"taken\"}"), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownership_changes_total{change=\"retaken\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownership_changes_total{change=\"handed_over\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownership_changes_total{change=\"lost\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_loading_seconds_count"), "2");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownerless_seconds_count"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_log_ownerless_seconds_sum"), "0.03");
  EXPECT_EQ(ValueOf(dump, "postkeeper_relayed_calls_total{result=\"answered\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_relayed_calls_total{result=\"broken\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_relayed_calls_total{result=\"no_owner\"}"), "0");
  EXPECT_EQ(ValueOf(dump, "postkeeper_relayed_streams_total{result=\"no_owner\"}"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_logs{kind=\"queue\"}"), "12");
  EXPECT_EQ(ValueOf(dump, "postkeeper_logs{kind=\"topic\"}"), "13");
  EXPECT_EQ(ValueOf(dump, "postkeeper_logs_owned{kind=\"queue\"}"), "14");
  EXPECT_EQ(ValueOf(dump, "postkeeper_logs_owned{kind=\"topic\"}"), "15");
  EXPECT_EQ(ValueOf(dump, "postkeeper_logs_polling"), "16");
  EXPECT_EQ(ValueOf(dump, "postkeeper_stored_bytes"), "17");
  EXPECT_EQ(ValueOf(dump, "postkeeper_corruptions_total"), "18");
  EXPECT_EQ(ValueOf(dump, "postkeeper_limit{limit=\"calls\"}"), "100");
  EXPECT_EQ(ValueOf(dump,
                    "postkeeper_calls_in_progress{grpc_method=\"Enqueue\","
                    "grpc_service=\"postkeeper.v1.MessageService\",grpc_type=\"unary\"}"),
            "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_replicas"), "3");
  EXPECT_EQ(ValueOf(dump, "postkeeper_unreachable_replicas"), "1");
  EXPECT_EQ(ValueOf(dump, "postkeeper_build_info{store_format=\"1\",version=\"1.2.3\"}"), "1");
}

// What the process takes is there under the names that every dashboard knows.
TEST(PrometheusTest, TheProcessIsSeen) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  const std::string dump = metrics->Dump();
  const auto value = [&](const std::string& name) { return std::strtod(ValueOf(dump, name).c_str(), nullptr); };
  EXPECT_GE(value("process_cpu_seconds_total"), 0);
  EXPECT_GT(value("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(value("process_virtual_memory_bytes"), value("process_resident_memory_bytes"));
  EXPECT_GE(value("process_open_fds"), 3);
  EXPECT_GE(value("process_max_fds"), value("process_open_fds"));
  const auto now = static_cast<double>(std::time(nullptr));
  EXPECT_NEAR(value("process_start_time_seconds"), now, 3600);
  std::FILE* file = std::fopen("/dev/null", "r");
  EXPECT_EQ(ValueOf(*metrics, "process_open_fds"), std::to_string(static_cast<int>(value("process_open_fds")) + 1));
  std::fclose(file);
}

// The page of all metrics has a row for each, with its type and labels, and none for what a histogram is made of.
TEST(PrometheusTest, ThePageNamesEverything) {
  const std::string page = MetricsMarkdown();
  EXPECT_THAT(page,
              HasSubstr("| `postkeeper_queue_messages` | gauge | queue, state | Messages in the queue, by state. |"));
  EXPECT_THAT(page, HasSubstr("| `postkeeper_queue_time_seconds` | histogram | queue | From the append"));
  EXPECT_THAT(page, HasSubstr("| `postkeeper_zookeeper_connected` | gauge |  | 1 = there is"));
  EXPECT_THAT(page, HasSubstr("| `process_cpu_seconds_total` | counter |  | "));
  EXPECT_THAT(page, Not(HasSubstr("_bucket`")));
  EXPECT_THAT(page, Not(HasSubstr("|  |  |")));
}

// However many queues there are, the page does not grow past its maximum; tests/nightly/scrape_time.py takes the time.
TEST(PrometheusTest, ThePageIsBounded) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make(10);
  std::vector<std::unique_ptr<QueueMetrics>> queues;
  const auto add = [&](int count) {
    for (int i = 0; i < count; ++i) {
      const std::string name = "namespaces/default/queues/queue-" + std::to_string(queues.size());
      queues.push_back(metrics->ForQueue(name, [] { return QueueGauges{.ready = 1}; }));
    }
    const std::string dump = metrics->Dump();
    return std::count(dump.begin(), dump.end(), '\n');
  };
  const auto lines = add(11);
  EXPECT_EQ(add(10'000), lines);
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_messages{queue=\"_other\",state=\"ready\"}"), "10001");
}

// The gRPC ecosystem's metrics: all of a method's series, every code among them, exist from the start, at 0.
TEST(PrometheusTest, MethodsStartAtZero) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  MethodMetrics& method = metrics->ForMethod({"bidi_stream", "postkeeper.v1.MessageService", "Consume"});
  const std::string labels =
      "grpc_method=\"Consume\",grpc_service=\"postkeeper.v1.MessageService\",grpc_type=\"bidi_stream\"}";
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_started_total{" + labels), "0");
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_msg_received_total{" + labels), "0");
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_msg_sent_total{" + labels), "0");
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_handling_seconds_count{" + labels), "0");
  for (const char* code : {"OK", "Canceled", "Unauthenticated", "Unavailable"}) {
    EXPECT_EQ(ValueOf(*metrics, std::string("grpc_server_handled_total{grpc_code=\"") + code + "\"," + labels), "0");
  }
  method.Started();
  method.Handled(14, milliseconds(1));
  method.Handled(-1, milliseconds(1));
  method.Handled(99, milliseconds(1));
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_started_total{" + labels), "1");
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_handled_total{grpc_code=\"Unavailable\"," + labels), "1");
  EXPECT_EQ(ValueOf(*metrics, "grpc_server_handled_total{grpc_code=\"Unknown\"," + labels), "2");
  EXPECT_EQ(&metrics->ForMethod({"bidi_stream", "postkeeper.v1.MessageService", "Consume"}), &method);
}

// Past the maximum, queues are summed as _other; a queue that goes makes room for a new one.
TEST(PrometheusTest, AtMostSoManyQueuesAreLabelled) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make(2);
  const auto gauges = [](int ready, int age) {
    return [=] { return QueueGauges{.ready = ready, .oldest_age = seconds(age)}; };
  };
  auto a = metrics->ForQueue("a", gauges(1, 1));
  auto b = metrics->ForQueue("b", gauges(2, 1));
  auto c = metrics->ForQueue("c", gauges(3, 9));
  auto d = metrics->ForQueue("d", gauges(4, 5));
  a->Acked(1);
  c->Acked(3);
  d->Acked(4);
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"a\"}"), "1");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"c\"}"), "none");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"_other\"}"), "7");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_messages{queue=\"_other\",state=\"ready\"}"), "7");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_oldest_age_seconds{queue=\"_other\"}"), "9");
  c.reset();
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"_other\"}"), "7");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_messages{queue=\"_other\",state=\"ready\"}"), "4");
  a.reset();
  auto e = metrics->ForQueue("e", gauges(5, 1));
  e->Acked(5);
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"e\"}"), "5");
}

// When the last handle of a queue goes, all of its series go; those of its neighbours stay.
TEST(PrometheusTest, ADeletedQueueLeavesNothingBehind) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  auto neighbour = metrics->ForQueue("neighbour", [] { return QueueGauges{}; });
  // Without the process, which takes time meanwhile.
  const auto dump = [&] {
    const std::string all = metrics->Dump();
    return all.substr(0, all.find("# HELP process_"));
  };
  const std::string before = dump();
  auto topic = metrics->ForTopic("gone", [] { return TopicGauges{}; });
  auto one = metrics->ForQueue("gone", [] { return QueueGauges{.ready = 1}; });
  auto two = metrics->ForQueue("gone", [] { return QueueGauges{.ready = 2}; });
  one->Acked(1);
  two->Acked(2);
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"gone\"}"), "3");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_messages{queue=\"gone\",state=\"ready\"}"), "3");
  one.reset();
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"gone\"}"), "3");
  two.reset();
  topic.reset();
  EXPECT_EQ(dump(), before);
}

// A name is a stranger's text: quotes and line breaks in it cannot forge a series.
TEST(PrometheusTest, NamesAreEscaped) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  auto queue = metrics->ForQueue("a\"} 1\nforged 1", {});
  EXPECT_THAT(metrics->Dump(), Not(HasSubstr("\nforged")));
}

// Scraping, counting, opening and closing at the same time neither crashes nor loses a count.
TEST(PrometheusTest, IsThreadSafe) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make(2);
  auto shared = metrics->ForQueue("shared", [] { return QueueGauges{}; });
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 300; ++i) {
        shared->Acked(1);
        metrics->zookeeper().Requested("get", t % 2 == 0 ? "ok" : "no_node", milliseconds(1));
        auto mine = metrics->ForQueue("q" + std::to_string(t), [] { return QueueGauges{.ready = 1}; });
        mine->Acked(1);
      }
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_THAT(metrics->Dump(), HasSubstr("postkeeper_build_info"));
  threads.clear();
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_queue_acked_messages_total{queue=\"shared\"}"), "900");
  EXPECT_EQ(ValueOf(*metrics, "postkeeper_zookeeper_request_seconds_count{operation=\"get\"}"), "900");
}

// A real scrape over HTTP gets what Dump shows.
TEST(PrometheusTest, ServesOverHttp) {
  std::unique_ptr<PrometheusMetrics> metrics = Make();
  EXPECT_EQ(metrics->port(), 0);
  const UseOfEverything everything(*metrics);
  ASSERT_TRUE(metrics->Listen("127.0.0.1:0").ok());
  ASSERT_NE(metrics->port(), 0);
  const std::string answer = Scrape(metrics->port());
  EXPECT_THAT(answer, HasSubstr("200 OK"));
  EXPECT_THAT(answer, HasSubstr("postkeeper_queue_acked_messages_total{queue=\"namespaces/default/queues/q\"} 3"));
  EXPECT_THAT(answer, HasSubstr("postkeeper_zookeeper_connected 1"));
}

// Two servers cannot share a port, and the second one says so in one line.
TEST(PrometheusTest, APortThatIsTaken) {
  const std::unique_ptr<PrometheusMetrics> first = Make();
  ASSERT_TRUE(first->Listen("127.0.0.1:0").ok());
  const std::string port = std::to_string(first->port());
  const std::unique_ptr<PrometheusMetrics> second = Make();
  EXPECT_EQ(second->Listen("127.0.0.1:" + port).message(),
            "port " + port + " on 127.0.0.1 is taken. Choose another: --metrics-listen 127.0.0.1:7500");
  EXPECT_EQ(second->port(), 0);
}

// Prometheus's own linter has nothing to say about names, types, units and help texts.
TEST(PrometheusTest, PromtoolIsContent) {
  const std::unique_ptr<PrometheusMetrics> metrics = Make();
  const UseOfEverything everything(*metrics);
  const std::string path = testing::TempDir() + "postkeeper_metrics_" + std::to_string(getpid()) + ".txt";
  std::FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  const std::string dump = metrics->Dump();
  std::fwrite(dump.data(), 1, dump.size(), file);
  std::fclose(file);
  std::FILE* promtool = popen(("promtool check metrics < " + path + " 2>&1").c_str(), "r");
  ASSERT_NE(promtool, nullptr);
  std::string said;
  std::array<char, 4096> buffer;
  std::size_t size;
  while ((size = std::fread(buffer.data(), 1, buffer.size(), promtool)) > 0) said.append(buffer.data(), size);
  const int status = pclose(promtool);
  std::remove(path.c_str());
  EXPECT_EQ(said, "");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
      << "promtool is in Debian's package prometheus, which cmake/debian-packages.txt lists";
}

// The metrics of tests count nothing and need nothing.
TEST(PrometheusTest, NullMetricsTakeEverything) {
  const std::unique_ptr<Metrics> metrics = MakeNullMetrics();
  auto queue = metrics->ForQueue("q", {});
  ASSERT_NE(queue, nullptr);
  queue->Acked(1);
  auto topic = metrics->ForTopic("t", {});
  ASSERT_NE(topic, nullptr);
  topic->Published(1, 1);
  MethodMetrics& method = metrics->ForMethod({"unary", "s", "m"});
  method.Handled(0, milliseconds(1));
  EXPECT_EQ(&method, &metrics->ForMethod({"unary", "s", "other"}));
}

}  // namespace
}  // namespace postkeeper
