// The kinds of panel that the dashboard has, from Grafana's published types. grafana.rs appends the dashboard's parts as literals.
import type { AnnotationQuery, Dashboard, FieldConfig, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as timeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as series from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
// Prometheus's queries are in the schema's package up to version 10 only.
import type { PrometheusDataQuery } from 'grafana-schema-10/dist/esm/raw/composable/prometheus/dataquery/x/PrometheusDataQuery_types.gen';

/** As JSON has it: an enumeration's words instead of its members. */
type Plain<T> = T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends Array<infer Item> ? Plain<Item>[]
  : T extends object ? { [Name in keyof T]: Plain<T[Name]> }
  : T;

// The schema leaves open what depends on the kind of panel or of query. Here it is closed, so that a wrong name is an error.
type Of<Kind, Options, Custom> = Plain<Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Kind;
  options: Options;
  fieldConfig: { defaults: Omit<FieldConfig, 'custom'> & { custom: Custom }; overrides: [] };
  targets: PrometheusDataQuery[];
}>;
type Row = Plain<RowPanel>;
type Stat = Of<'stat', stat.Options, {}>;
type StateTimeline = Of<'state-timeline', timeline.Options, timeline.FieldConfig>;
type TimeSeries = Of<'timeseries', series.Options, series.FieldConfig>;
type Variable = Plain<Omit<VariableModel, 'query'> & { query: string | { query: string; refId: string } }>;
// The two formats are what Prometheus's data source reads beside the query.
type Annotation = Plain<AnnotationQuery<PrometheusDataQuery> & { titleFormat?: string; textFormat?: string }>;
type Head = Plain<Omit<Dashboard, 'panels' | 'templating' | 'annotations'>>;

