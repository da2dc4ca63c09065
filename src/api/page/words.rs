//! The page's words, in English and in Vietnamese. What the program itself says (reasons, events) is English in both.

/// A language of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    /// English.
    En,
    /// Vietnamese.
    Vi,
}

impl Lang {
    /// The one a browser likes better, by its `Accept-Language` (RFC 9110); English where it says neither.
    pub fn of_header(accept: &str) -> Self {
        let weight = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let (tag, rest) = range.split_once(';').unwrap_or((range, ""));
                let tag = tag.trim().to_ascii_lowercase();
                let is_it = tag == wanted || tag.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('-'));
                let q = rest.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>).unwrap_or(0.0);
                is_it.then_some(q)
            });
            ranges.fold(0.0, f32::max)
        };
        if weight("vi") > weight("en") { Lang::Vi } else { Lang::En }
    }

    /// By its tag.
    pub fn of_tag(tag: &str) -> Option<Self> {
        [Lang::En, Lang::Vi].into_iter().find(|lang| lang.tag() == tag)
    }

    /// As HTML's `lang` has it.
    pub fn tag(self) -> &'static str {
        match self {
            Lang::En => "en",
            Lang::Vi => "vi",
        }
    }

    /// The other one, and its name in itself.
    pub fn other(self) -> (Self, &'static str) {
        match self {
            Lang::En => (Lang::Vi, "Tiếng Việt"),
            Lang::Vi => (Lang::En, "English"),
        }
    }

    /// Its words.
    pub fn words(self) -> &'static Words {
        match self {
            Lang::En => &EN,
            Lang::Vi => &VI,
        }
    }
}

macro_rules! words {
    ($($key:ident: $en:literal, $vi:literal;)+) => {
        /// Every word of the page.
        #[derive(Debug)]
        #[allow(missing_docs, reason = "each is its own text")]
        pub struct Words { $(pub $key: &'static str),+ }
        static EN: Words = Words { $($key: $en),+ };
        static VI: Words = Words { $($key: $vi),+ };
        #[cfg(test)]
        pub(super) const PAIRS: &[(&str, &str, &str)] = &[$((stringify!($key), $en, $vi)),+];
    };
}

words! {
    title: "Failover watchdog", "Giám sát chuyển đổi dự phòng";
    skip: "Skip to the content", "Đến nội dung chính";
    cluster: "Cluster", "Cụm";
    leader: "Leader", "Nút dẫn đầu";
    nobody: "none", "không có";
    quorum: "Quorum", "Đa số";
    yes: "yes", "có";
    no: "no", "không";
    as_of: "As of", "Tại thời điểm";
    seen_from: "seen from", "nhìn từ";
    no_quorum: "No leader or no quorum: nothing can be changed, and what follows may be old.", "Không có nút dẫn đầu hoặc không đủ đa số: không thể thay đổi gì, và những gì bên dưới có thể đã cũ.";
    live: "Live", "Trực tiếp";
    lost: "Not live: the connection is lost, trying again", "Không còn trực tiếp: mất kết nối, đang thử lại";
    still: "As of when it was loaded.", "Theo thời điểm tải trang.";
    reload: "Load it again", "Tải lại";
    group: "Group", "Nhóm";
    groups: "Groups", "Các nhóm";
    no_groups: "No groups: no configuration was adopted yet, or it names none.", "Chưa có nhóm nào: chưa có cấu hình được áp dụng, hoặc cấu hình không nêu nhóm nào.";
    serving: "Serving", "Đang phục vụ";
    serving_nobody: "nobody", "không nơi nào";
    last_was: "last was", "gần nhất là";
    home: "home", "vùng chính";
    away: "not its home", "không phải vùng chính";
    mode: "Mode", "Chế độ";
    automatic: "automatic", "tự động";
    shadow: "shadow: decides and pages, does nothing", "chạy bóng: quyết định và báo, không làm gì";
    paused: "paused", "tạm dừng";
    paused_by: "by", "bởi";
    until: "until", "đến";
    resumed: "somebody resumes it", "khi có người cho chạy lại";
    fencing: "Fencing", "Cách ly";
    traffic: "Traffic", "Lưu lượng";
    token: "Token", "Thẻ số";
    why: "Why", "Lý do";
    standby: "Standby", "Bản dự phòng";
    streaming: "streaming", "đang nhận liên tục";
    not_streaming: "NOT streaming", "KHÔNG nhận liên tục";
    would_lose: "promoting now could lose", "nếu chuyển bây giờ có thể mất";
    loss_unknown: "what promoting now would lose is not known", "không rõ sẽ mất bao nhiêu nếu chuyển bây giờ";
    limit: "limit", "giới hạn";
    unsettled: "Unsettled", "Chưa ngã ngũ";
    votes: "Votes", "Phiếu";
    votes_of: "Who judges what, and since when", "Nút nào đánh giá gì, từ lúc nào";
    votes_unknown: "Only the leader counts votes, and it does not answer this node.", "Chỉ nút dẫn đầu đếm phiếu, và nó không trả lời nút này.";
    target: "Target", "Đích giám sát";
    up: "up", "tốt";
    suspect: "suspect", "nghi ngờ";
    down: "down", "hỏng";
    unspecified: "nothing", "chưa rõ";
    since: "since", "từ";
    not_counted: "does not count", "không được tính";
    readiness: "Readiness", "Mức sẵn sàng";
    if_lost: "if this region vanished now, to", "nếu vùng này mất ngay bây giờ, chuyển sang";
    ready: "ready", "sẵn sàng";
    weak: "weak", "yếu";
    unknown: "not known", "không rõ";
    not_ready: "NOT ready", "CHƯA sẵn sàng";
    not_judged: "not judged yet", "chưa được đánh giá";
    earlier: "judged before it moved", "đánh giá từ trước khi chuyển";
    open_run: "Open run", "Lượt chạy đang mở";
    no_open_run: "No run is open.", "Không có lượt chạy nào đang mở.";
    drill: "drill", "diễn tập";
    from: "from", "từ";
    to: "to", "sang";
    opened: "opened", "mở lúc";
    by: "by", "bởi";
    stuck: "Stuck: it waits for an operator", "Bị kẹt: đang chờ người vận hành";
    what_to_do: "What you may do", "Có thể làm gì";
    step: "Step", "Bước";
    stage: "Stage", "Giai đoạn";
    state: "State", "Trạng thái";
    attempts: "Attempts", "Số lần thử";
    began: "Began", "Bắt đầu";
    took: "Took", "Mất";
    detail: "Detail", "Chi tiết";
    pending: "not begun", "chưa bắt đầu";
    started: "under way", "đang làm";
    done: "done", "xong";
    failed: "failed", "thất bại";
    step_unknown: "outcome not known", "không rõ kết quả";
    skipped: "skipped", "bỏ qua";
    procedure: "Procedure", "Quy trình";
    detect: "detect", "phát hiện";
    assess: "assess", "đánh giá";
    decide: "decide", "quyết định";
    execute: "execute", "thực hiện";
    verify: "verify", "kiểm tra";
    communicate: "communicate", "thông báo";
    monitor: "monitor", "theo dõi";
    amiss: "amiss", "có vấn đề";
    timeline: "Timeline", "Dòng thời gian";
    timeline_of: "Steps over time, in seconds since the run opened", "Các bước theo thời gian, tính bằng giây từ lúc mở";
    when: "When", "Lúc";
    node: "Node", "Nút";
    what: "What", "Việc gì";
    phase_open: "under way", "đang chạy";
    phase_stuck: "stuck", "bị kẹt";
    phase_aborting: "aborting", "đang hủy";
    phase_reverting: "going back", "đang quay lại";
    phase_reverted: "went back", "đã quay lại";
    phase_succeeded: "succeeded", "thành công";
    phase_withdrawn: "withdrawn", "rút lại";
    phase_aborted: "aborted", "bị hủy";
    failover: "failover", "chuyển sang dự phòng";
    switchover: "switchover", "chuyển có kế hoạch";
    failback: "failback", "trở về vùng chính";
    traffic_run: "traffic", "chuyển lưu lượng";
    recovery: "recovery", "khôi phục";
    incidents: "Open incidents", "Sự cố đang mở";
    no_incidents: "None.", "Không có.";
    severity: "Severity", "Mức";
    has_it: "acknowledged by", "đã nhận bởi";
    nobody_has_it: "nobody has it", "chưa ai nhận";
    nodes: "Nodes", "Các nút";
    region: "Region", "Vùng";
    votes_too: "Votes", "Bỏ phiếu";
    answers: "Answers", "Trả lời";
    notes: "Notes", "Ghi chú";
    leads: "leads", "dẫn đầu";
    isolated: "isolated: sees neither references nor peers", "bị cô lập: không thấy đích đối chiếu lẫn nút khác";
    other_config: "another configuration than the one in force", "cấu hình khác với cấu hình đang áp dụng";
    behind: "entries behind", "mục chậm hơn";
    past: "Past runs", "Các lượt đã chạy";
    no_past: "None is remembered.", "Chưa có lượt nào được ghi nhớ.";
    recovery_times: "Recovery times against the objective", "Thời gian khôi phục so với mục tiêu";
    recovery_time: "Recovery time", "Thời gian khôi phục";
    objective: "objective", "mục tiêu";
    within: "within", "đạt";
    over: "over", "vượt";
    real_run: "run", "lượt thật";
    kind: "Kind", "Loại";
    ended: "Ended", "Kết thúc";
    drills: "Drills", "Diễn tập";
    no_drills: "None is remembered.", "Chưa có lần diễn tập nào được ghi nhớ.";
    drill_open: "not yet", "chưa kết thúc";
    tabletop: "tabletop", "trên giấy";
    simulated: "simulated", "mô phỏng";
    live_drill: "live", "chạy thật";
    passed: "passed", "đạt yêu cầu";
    lost_in_it: "Lost", "Mất mát";
    no_row_lost: "no row", "không mất dòng nào";
    rows: "rows", "dòng";
    audit: "Newest of the audit", "Nhật ký kiểm toán mới nhất";
    who: "Who", "Ai";
    outcome: "Outcome", "Kết quả";
    pages_waiting: "Pages not delivered", "Thông báo chưa gửi được";
    waits_for: "waits for", "đang chờ";
    refused_by: "refused by", "bị từ chối bởi";
    footer: "Read-only. Orders are given with watchdogctl.", "Chỉ để xem. Ra lệnh bằng watchdogctl.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_the_language_it_likes_better() {
        for (accept, wanted) in [
            ("", Lang::En),
            ("vi", Lang::Vi),
            ("vi-VN,vi;q=0.9,en-US;q=0.8", Lang::Vi),
            ("en-US,en;q=0.9,vi;q=0.8", Lang::En),
            ("de, vi;q=0.3", Lang::Vi),
            ("vietnam", Lang::En),
            ("vi;q=nonsense, en", Lang::En),
            ("fr", Lang::En),
        ] {
            assert_eq!(Lang::of_header(accept), wanted, "{accept:?}");
        }
    }

    #[test]
    fn every_word_is_said_in_both_languages() {
        for (key, en, vi) in PAIRS {
            assert!(!en.is_empty() && !vi.is_empty(), "{key}");
            let is_only_latin = vi.is_ascii() && vi.len() > 12;
            assert!(!is_only_latin, "{key} is not Vietnamese: {vi}");
        }
    }
}
