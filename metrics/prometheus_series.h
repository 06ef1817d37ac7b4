// The series of queues and topics: who has some of its own, and who shares. Part of prometheus.cc; nobody else includes
// this.
#ifndef POSTKEEPER_METRICS_PROMETHEUS_SERIES_H_
#define POSTKEEPER_METRICS_PROMETHEUS_SERIES_H_

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <functional>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "metrics/metrics.h"

namespace postkeeper {

// The label of all that have no series of their own.
inline constexpr char kOther[] = "_other";

// A family of counters, and one of histograms, in `registry`.
inline prometheus::Family<prometheus::Counter>& Count(prometheus::Registry& registry, const char* name,
                                                      const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}
inline prometheus::Family<prometheus::Histogram>& Distribution(prometheus::Registry& registry, const char* name,
                                                               const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
}

// The counters of one queue: made with its label, and taken out of their families by Remove.
struct QueueFamilies;
struct QueueSeries {
  QueueSeries(QueueFamilies& families, const std::string& name);
  void Remove(QueueFamilies& families);

  prometheus::Counter& enqueued_messages;
  prometheus::Counter& enqueued_bytes;
  prometheus::Counter& delivered;
  prometheus::Counter& redelivered;
  prometheus::Counter& acked;
  prometheus::Counter& nacked_retry;
  prometheus::Counter& nacked_release;
  prometheus::Counter& lapsed;
  prometheus::Counter& purged;
  prometheus::Counter& deleted;
  prometheus::Histogram& time_in_queue;
};

struct QueueFamilies {
  using Series = QueueSeries;
  using Gauges = QueueGauges;
  static constexpr const char* kLabel = "queue";

  explicit QueueFamilies(prometheus::Registry& r)
      : enqueued_messages(Count(r, "postkeeper_queue_enqueued_messages_total", "Messages written durably.")),
        enqueued_bytes(Count(r, "postkeeper_queue_enqueued_bytes_total", "Bytes of messages written durably.")),
        delivered(Count(r, "postkeeper_queue_delivered_messages_total", "Messages given to consumers, repeats too.")),
        redelivered(Count(r, "postkeeper_queue_redelivered_messages_total",
                          "Messages given to consumers not for the first time.")),
        acked(Count(r, "postkeeper_queue_acked_messages_total", "Messages settled by an ack.")),
        nacked(Count(r, "postkeeper_queue_nacked_messages_total", "Messages given back, by kind.")),
        lapsed(Count(r, "postkeeper_queue_lapsed_leases_total", "Leases that passed their deadline.")),
        purged(Count(r, "postkeeper_queue_purged_messages_total", "Messages dropped by PurgeQueue.")),
        deleted(Count(r, "postkeeper_queue_deleted_messages_total", "Messages that went with their queue.")),
        time_in_queue(Distribution(r, "postkeeper_queue_time_seconds", "From the append of a message to its ack.")) {}

  prometheus::Family<prometheus::Counter>& enqueued_messages;
  prometheus::Family<prometheus::Counter>& enqueued_bytes;
  prometheus::Family<prometheus::Counter>& delivered;
  prometheus::Family<prometheus::Counter>& redelivered;
  prometheus::Family<prometheus::Counter>& acked;
  prometheus::Family<prometheus::Counter>& nacked;
  prometheus::Family<prometheus::Counter>& lapsed;
  prometheus::Family<prometheus::Counter>& purged;
  prometheus::Family<prometheus::Counter>& deleted;
  prometheus::Family<prometheus::Histogram>& time_in_queue;
};

// The same of one topic.
struct TopicFamilies;
struct TopicSeries {
  TopicSeries(TopicFamilies& families, const std::string& name);
  void Remove(TopicFamilies& families);

  prometheus::Counter& published_messages;
  prometheus::Counter& published_bytes;
  prometheus::Counter& delivered;
  prometheus::Histogram& delivery_age;
  prometheus::Counter& trimmed;
  prometheus::Counter& deleted;
};

struct TopicFamilies {
  using Series = TopicSeries;
  using Gauges = TopicGauges;
  static constexpr const char* kLabel = "topic";

  explicit TopicFamilies(prometheus::Registry& r)
      : published_messages(Count(r, "postkeeper_topic_published_messages_total", "Messages written durably.")),
        published_bytes(Count(r, "postkeeper_topic_published_bytes_total", "Bytes of messages written durably.")),
        delivered(
            Count(r, "postkeeper_topic_delivered_messages_total", "Messages sent to subscribers, once for each.")),
        delivery_age(Distribution(r, "postkeeper_topic_delivery_age_seconds",
                                  "Age of the newest message of each response that goes to a subscriber.")),
        trimmed(Count(r, "postkeeper_topic_trimmed_messages_total", "Messages forgotten by the retention policy.")),
        deleted(Count(r, "postkeeper_topic_deleted_messages_total", "Messages that went with their topic.")) {}

  prometheus::Family<prometheus::Counter>& published_messages;
  prometheus::Family<prometheus::Counter>& published_bytes;
  prometheus::Family<prometheus::Counter>& delivered;
  prometheus::Family<prometheus::Histogram>& delivery_age;
  prometheus::Family<prometheus::Counter>& trimmed;
  prometheus::Family<prometheus::Counter>& deleted;
};

// Sums; of ages the highest.
void Add(QueueGauges& sum, const QueueGauges& more);
void Add(TopicGauges& sum, const TopicGauges& more);

// All queues, or all topics: who has series of its own, who shares those of `_other`, and the callbacks for the gauges.
template <typename Families>
class Room {
 public:
  using Series = typename Families::Series;
  using Gauges = typename Families::Gauges;
  using Callback = std::function<Gauges()>;

  // One name. Two handles for one name share it.
  struct Entry {
    std::string name;
    std::string label;  // the name, or _other
    std::shared_ptr<Series> series;
    std::list<Callback> callbacks;
  };
  struct Ticket {
    Entry* entry;
    typename std::list<Callback>::iterator callback;
  };

  Room(prometheus::Registry& registry, int labelled_max) : families_(registry), labelled_max_(labelled_max) {}

  Ticket Enter(std::string_view name, Callback callback) {
    const std::lock_guard lock(mutex_);
    auto it = entries_.find(name);
    if (it == entries_.end()) it = entries_.emplace(std::string(name), MakeEntry(std::string(name))).first;
    Entry& entry = it->second;
    entry.callbacks.push_back(std::move(callback));
    return {&entry, std::prev(entry.callbacks.end())};
  }

  void Leave(const Ticket& ticket) {
    const std::lock_guard lock(mutex_);
    Entry& entry = *ticket.entry;
    entry.callbacks.erase(ticket.callback);
    if (!entry.callbacks.empty()) return;
    if (entry.series != other_) {
      entry.series->Remove(families_);
      --labelled_;
    }
    entries_.erase(entries_.find(entry.name));
  }

  // The gauges by label.
  std::map<std::string, Gauges> Read() const {
    const std::lock_guard lock(mutex_);
    std::map<std::string, Gauges> sums;
    for (const auto& [name, entry] : entries_) {
      Gauges& sum = sums[entry.label];
      for (const Callback& callback : entry.callbacks) {
        if (callback) Add(sum, callback());
      }
    }
    return sums;
  }

 private:
  Entry MakeEntry(std::string name) {
    if (labelled_ < labelled_max_) {
      ++labelled_;
      auto series = std::make_shared<Series>(families_, name);
      return {name, name, std::move(series), {}};
    }
    if (other_ == nullptr) other_ = std::make_shared<Series>(families_, kOther);
    return {std::move(name), kOther, other_, {}};
  }

  // Constant after construction.
  Families families_;
  const int labelled_max_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::string, Entry, std::less<>> entries_;
  int labelled_ = 0;
  std::shared_ptr<Series> other_;  // from the first time that it is needed
};

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_PROMETHEUS_SERIES_H_
