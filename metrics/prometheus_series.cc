#include "metrics/prometheus_series.h"

#include <algorithm>

namespace postkeeper {
namespace {

prometheus::Histogram::BucketBoundaries QueueSeconds() {
  return {0.005, 0.025, 0.1, 0.5, 2.5, 10, 60, 600, 3600, 86400};
}

}  // namespace

QueueSeries::QueueSeries(QueueFamilies& f, const std::string& name)
    : enqueued_messages(f.enqueued_messages.Add({{"queue", name}})),
      enqueued_bytes(f.enqueued_bytes.Add({{"queue", name}})),
      delivered(f.delivered.Add({{"queue", name}})),
      redelivered(f.redelivered.Add({{"queue", name}})),
      acked(f.acked.Add({{"queue", name}})),
      nacked_retry(f.nacked.Add({{"queue", name}, {"kind", "retry"}})),
      nacked_release(f.nacked.Add({{"queue", name}, {"kind", "release"}})),
      lapsed(f.lapsed.Add({{"queue", name}})),
      purged(f.purged.Add({{"queue", name}})),
      deleted(f.deleted.Add({{"queue", name}})),
      time_in_queue(f.time_in_queue.Add({{"queue", name}}, QueueSeconds())) {}

void QueueSeries::Remove(QueueFamilies& f) {
  f.enqueued_messages.Remove(&enqueued_messages);
  f.enqueued_bytes.Remove(&enqueued_bytes);
  f.delivered.Remove(&delivered);
  f.redelivered.Remove(&redelivered);
  f.acked.Remove(&acked);
  f.nacked.Remove(&nacked_retry);
  f.nacked.Remove(&nacked_release);
  f.lapsed.Remove(&lapsed);
  f.purged.Remove(&purged);
  f.deleted.Remove(&deleted);
  f.time_in_queue.Remove(&time_in_queue);
}

TopicSeries::TopicSeries(TopicFamilies& f, const std::string& name)
    : published_messages(f.published_messages.Add({{"topic", name}})),
      published_bytes(f.published_bytes.Add({{"topic", name}})),
      delivered(f.delivered.Add({{"topic", name}})),
      delivery_age(f.delivery_age.Add({{"topic", name}}, QueueSeconds())),
      trimmed(f.trimmed.Add({{"topic", name}})),
      deleted(f.deleted.Add({{"topic", name}})) {}

void TopicSeries::Remove(TopicFamilies& f) {
  f.published_messages.Remove(&published_messages);
  f.published_bytes.Remove(&published_bytes);
  f.delivered.Remove(&delivered);
  f.delivery_age.Remove(&delivery_age);
  f.trimmed.Remove(&trimmed);
  f.deleted.Remove(&deleted);
}

void Add(QueueGauges& sum, const QueueGauges& more) {
  sum.ready += more.ready;
  sum.delayed += more.delayed;
  sum.leased += more.leased;
  sum.bytes += more.bytes;
  sum.consumers += more.consumers;
  sum.consumers_with_credit += more.consumers_with_credit;
  sum.oldest_age = std::max(sum.oldest_age, more.oldest_age);
}

void Add(TopicGauges& sum, const TopicGauges& more) {
  sum.messages += more.messages;
  sum.bytes += more.bytes;
  sum.subscribers += more.subscribers;
  sum.subscribers_behind += more.subscribers_behind;
}

}  // namespace postkeeper
