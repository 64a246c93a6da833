{{/* What the schema can't say: values that fit by themselves and not together. */}}
{{- define "attest-gateway.checks" -}}
{{- $weights := .Values.weights }}
{{- $sources := 0 }}
{{- range list $weights.existingClaim $weights.image.reference $weights.csi $weights.initContainer }}
{{- if . }}{{ $sources = add1 $sources }}{{ end }}
{{- end }}
{{- $unseen := and (eq .Values.mode "proxy") (eq (int $sources) 0) }}
{{- if and $unseen (not .Values.model.manifest) }}
{{- fail "weights: without any source, model.manifest must name the manifest, from a volume of extraVolumes" }}
{{- end }}
{{- if not (or $unseen (eq (int $sources) 1)) }}
{{- fail (printf "weights: set exactly one of existingClaim, image.reference, csi and initContainer; found %d" (int $sources)) }}
{{- end }}
{{- if not (or .Values.trust.authorities .Values.trust.existingConfigMap) }}
{{- fail "trust: give the public key of a training authority: trust.authorities or trust.existingConfigMap with trust.files" }}
{{- end }}
{{- if and .Values.trust.existingConfigMap (or .Values.trust.authorities (not .Values.trust.files)) }}
{{- fail "trust: existingConfigMap goes with trust.files, and not with trust.authorities" }}
{{- end }}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled }}
{{- fail "autoscaling and keda: two scalers of one workload fight; enable one" }}
{{- end }}
{{- if not (or .Values.signer.uri .Values.signer.existingSecret) }}
{{- fail "signer: name a key store (signer.uri) or the Secret with the key (signer.existingSecret)" }}
{{- end }}
{{- if and .Values.signer.uri .Values.signer.existingSecret }}
{{- fail "signer: uri and existingSecret are two keys; give one" }}
{{- end }}
{{- if and .Values.log.existingSecret (not .Values.postgres.existingSecret) }}
{{- if or (include "attest-gateway.scaled" .) (gt (int .Values.replicaCount) 1) }}
{{- fail "log: two pods that sign heads of one log are a fork; use one replica, or postgres.existingSecret, where replicas share one log" }}
{{- end }}
{{- if not .Values.persistence.enabled }}
{{- fail "log: a log that forgets can't prove anything; set persistence.enabled" }}
{{- end }}
{{- end }}
{{- end }}
