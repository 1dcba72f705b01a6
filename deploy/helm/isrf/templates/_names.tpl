{{/* Names, labels, images. */}}

{{- define "isrf.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters: a CronJob's name has at most 52, and parts are added. */}}
{{- define "isrf.fullname" -}}
{{- $name := include "isrf.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "isrf.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "isrf.fullname" .) .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.name }}
{{- .Values.serviceAccount.name }}
{{- else }}
{{- fail "serviceAccount.name is empty and serviceAccount.create is false: name a service account, or let one be made." }}
{{- end }}
{{- end }}

{{- define "isrf.selector" -}}
app.kubernetes.io/name: {{ include "isrf.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "isrf.labels" -}}
{{ include "isrf.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Takes {image, context}. */}}
{{- define "isrf.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .context.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{/* The Secret that the chart makes, for what the values bring none for. */}}
{{- define "isrf.madeSecret" -}}
{{ include "isrf.fullname" . }}-made
{{- end }}

{{- define "isrf.dataClaim" -}}
{{- default (printf "%s-data" (include "isrf.fullname" .)) .Values.job.data.existingClaim }}
{{- end }}

{{/* Sentences for combinations of values that cannot work; the schema refuses single values. */}}
{{- define "isrf.check" -}}
{{- $v := .Values }}
{{- if not $v.redis.existingSecret }}
{{- fail "redis.existingSecret is empty: name a Secret whose key redis.url holds the URL of a Redis or Valkey." }}
{{- end }}
{{- if and (not $v.releases.url) (not $v.releases.existingClaim) }}
{{- fail "releases.url and releases.existingClaim are empty: say where the releases are, s3://bucket/prefix or a claim." }}
{{- end }}
{{- if and $v.releases.url $v.releases.existingClaim }}
{{- fail (printf "releases.url (%s) and releases.existingClaim (%s) are both set: leave one empty." $v.releases.url $v.releases.existingClaim) }}
{{- end }}
{{- if $v.ingress.enabled }}
{{- if or (not $v.ingress.host) (not $v.ingress.tlsSecret) }}
{{- fail "ingress.enabled needs ingress.host and ingress.tlsSecret: API keys must not travel unencrypted." }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.from) }}
{{- fail "networkPolicy.from is empty, so that the Ingress controller, in another namespace, would not reach the service: name its namespace there." }}
{{- end }}
{{- end }}
{{- if $v.autoscaling.enabled }}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas (%d) is above autoscaling.maxReplicas (%d)." (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- end }}
{{- if not (or $v.autoscaling.modelQueue $v.autoscaling.cpuPercent) }}
{{- fail "autoscaling.enabled needs autoscaling.modelQueue or autoscaling.cpuPercent above 0." }}
{{- end }}
{{- end }}
{{- if $v.job.enabled }}
{{- if and (eq $v.job.ray.mode "address") (not $v.job.ray.address) }}
{{- fail "job.ray.mode is address, and job.ray.address is empty: name a Ray cluster, ray://HOST:10001." }}
{{- end }}
{{- end }}
{{- end }}
