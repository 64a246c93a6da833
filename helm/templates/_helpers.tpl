{{- define "attest-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "attest-gateway.fullname" -}}
{{- $name := include "attest-gateway.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "attest-gateway.selector" -}}
app.kubernetes.io/name: {{ include "attest-gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "attest-gateway.labels" -}}
{{ include "attest-gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of an object: (list ROOT SUFFIX-OF-NAME). */}}
{{- define "attest-gateway.metadata" -}}
{{- $root := first . -}}
name: {{ include "attest-gateway.fullname" $root }}{{ last . }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "attest-gateway.labels" $root | nindent 2 }}
{{- end }}

{{- define "attest-gateway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "attest-gateway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "attest-gateway.image" -}}
{{- $suffix := eq .Values.mode "managed" | ternary "-managed" "" }}
{{- $tag := default (printf "%s%s" .Chart.AppVersion $suffix) .Values.image.tag }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "attest-gateway.engineImage" -}}
{{- with .Values.engine.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository .tag }}
{{- end }}
{{- end }}
{{- end }}

{{- define "attest-gateway.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end }}
{{- end }}

{{- define "attest-gateway.hasWeights" -}}
{{- with .Values.weights }}
{{- if or .existingClaim .image.reference .csi .initContainer }}true{{ end }}
{{- end }}
{{- end }}
