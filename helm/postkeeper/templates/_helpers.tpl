{{- define "postkeeper.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* 40 characters leave room for what is appended: a Service's name has at most 63. */}}
{{- define "postkeeper.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "postkeeper.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "postkeeper.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "postkeeper.zookeeper.fullname" -}}
{{ include "postkeeper.fullname" . }}-zookeeper
{{- end }}

{{- /* What a pod is found by: never changed by an update. Called with a dict of root and component. */}}
{{- define "postkeeper.selectorLabels" -}}
app.kubernetes.io/name: {{ include "postkeeper.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Of everything but pods: these change with every release of the chart, and a pod whose labels change is replaced. */}}
{{- define "postkeeper.labels" -}}
{{ include "postkeeper.selectorLabels" . }}
app.kubernetes.io/part-of: postkeeper
{{- if eq .component "zookeeper" }}
app.kubernetes.io/version: {{ .root.Values.zookeeper.image.tag | quote }}
{{- else }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "postkeeper.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "postkeeper.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "postkeeper.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* The members' own Services: their addresses stay when the pods behind them go. */}}
{{- define "postkeeper.zookeeper.hosts" -}}
{{- if .Values.zookeeper.hosts }}
{{- .Values.zookeeper.hosts }}
{{- else }}
{{- $hosts := list }}
{{- range $member := until (int .Values.zookeeper.replicas) }}
{{- $hosts = append $hosts (printf "%s-%d.%s.svc:2181" (include "postkeeper.zookeeper.fullname" $) $member $.Release.Namespace) }}
{{- end }}
{{- join "," $hosts }}
{{- end }}
{{- end }}

{{- /* "512MiB" as a number of MiB, rounded up. */}}
{{- define "postkeeper.mebibytes" -}}
{{- $text := . | replace " " "" }}
{{- if hasSuffix "GiB" $text }}{{ trimSuffix "GiB" $text | int | mul 1024 }}
{{- else if hasSuffix "MiB" $text }}{{ trimSuffix "MiB" $text | int }}
{{- else if hasSuffix "KiB" $text }}{{ div (add (trimSuffix "KiB" $text | int) 1023) 1024 }}
{{- else }}{{ div (add (int64 $text) 1048575) 1048576 }}
{{- end }}
{{- end }}

{{- /* "25s" as a number of seconds, rounded up. */}}
{{- define "postkeeper.seconds" -}}
{{- if hasSuffix "ms" . }}{{ div (add (trimSuffix "ms" . | int) 999) 1000 }}
{{- else if hasSuffix "s" . }}{{ trimSuffix "s" . | int }}
{{- else if hasSuffix "m" . }}{{ trimSuffix "m" . | int | mul 60 }}
{{- else }}{{ trimSuffix "h" . | int | mul 3600 }}
{{- end }}
{{- end }}

{{- define "postkeeper.zookeeper.heapMiB" -}}
{{- $stored := get .Values.config "stored-bytes-max" | default "1GiB" | include "postkeeper.mebibytes" | int }}
{{- $batchKiB := 512 }}
{{- with get .Values.config "batch-bytes-max" }}
{{- $batchKiB = include "postkeeper.mebibytes" . | int | mul 1024 | int }}
{{- if hasSuffix "KiB" . }}{{ $batchKiB = trimSuffix "KiB" . | int }}{{ end }}
{{- end }}
{{- $least := div (mul 3 (add $stored (div (mul 1000 $batchKiB) 1024))) 2 | int }}
{{- $heap := int .Values.zookeeper.heapMiB }}
{{- if and $heap (lt $heap $least) }}
{{- fail (printf "zookeeper.heapMiB (%d) must be at least %d, or config.stored-bytes-max less: a member that runs out of memory takes the others with it" $heap $least) }}
{{- end }}
{{- default $least $heap }}
{{- end }}

{{- /* Refuses what values.schema.json can't see. */}}
{{- define "postkeeper.check" -}}
{{- $drain := get .Values.config "drain-timeout" | default "25s" }}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add (include "postkeeper.seconds" $drain | int) 5 | int) }}
{{- fail (printf "terminationGracePeriodSeconds (%d) must be at least 5 above config.drain-timeout (%s), or Kubernetes kills replicas that are still handing over" (int .Values.terminationGracePeriodSeconds) $drain) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas (%d) is more than autoscaling.maxReplicas (%d)" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}
{{- end }}
{{- end }}

{{- /* The file that postkeeperd reads. */}}
{{- define "postkeeper.toml" -}}
# Flags and POSTKEEPER_* variables win over this.
{{- range $name, $value := .Values.config }}
{{ $name }} = {{ $value | quote }}
{{- end }}
{{- end }}

{{- /* The file that the members read. */}}
{{- define "postkeeper.zookeeper.cfg" -}}
{{- $name := include "postkeeper.zookeeper.fullname" . -}}
dataDir=/data
# Sessions of 2 s to 60 s, as postkeeperd may ask for; an expiry is noticed within a tick.
tickTime=500
minSessionTimeout=2000
maxSessionTimeout=60000
# A minute to read a snapshot from the leader, 5 s of silence between members.
initLimit=120
syncLimit=10
# Batches of half a megabyte: what bounds the logs is their size, not the number of transactions.
snapSizeLimitInKb={{ .Values.zookeeper.snapSizeLimitInKb | int64 }}
snapCount=300000
# Logs grow by so much at a time, which counts as written.
preAllocSize=16384
autopurge.purgeInterval=1
autopurge.snapRetainCount={{ .Values.zookeeper.snapRetainCount }}
# Nobody is told OK before it is on the disk.
forceSync=yes
# Its cache would keep 400 batches in memory that postkeeperd caches itself.
maxResponseCacheSize=0
maxGetChildrenResponseCacheSize=0
admin.enableServer=false
4lw.commands.whitelist=srvr,ruok,mntr,conf
# A pod's own name may not be known yet when it starts.
quorumListenOnAllIPs=true
{{- range $key, $value := .Values.zookeeper.extraConfig }}
{{ $key }}={{ $value }}
{{- end }}
{{- range $member := until (int .Values.zookeeper.replicas) }}
server.{{ add1 $member }}={{ $name }}-{{ $member }}.{{ $name }}.{{ $.Release.Namespace }}.svc:2888:3888;2181
{{- end }}
{{- end }}
